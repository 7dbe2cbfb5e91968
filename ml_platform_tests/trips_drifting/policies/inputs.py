"""What counts as drift: little is noise here, since a day has eighty trips."""

from ml_platform.spec import DriftPolicy

inputs = DriftPolicy(
    service="desk",
    description="Each served feature against the days before.",
    min_rows=20,
    min_days=3,
    min_distance=0.5,
    ratio=1.2,
)
