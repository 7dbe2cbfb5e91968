"""What counts as drift."""

from ml_platform.spec import DriftPolicy

inputs = DriftPolicy(
    service="desk", description="Each served feature against the days before.", min_rows=20, min_days=3
)
