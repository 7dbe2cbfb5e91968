"""What counts as drift."""

from ml_platform.spec import DriftPolicy, Seasons

inputs = DriftPolicy(
    service="desk",
    description="Each served feature against the days before.",
    min_rows=20,
    seasons=Seasons(recent_days=28, min_days=3),
)
