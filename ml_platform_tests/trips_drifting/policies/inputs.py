"""What counts as drift: much is noise here, since a day has eighty trips."""

from ml_platform.spec import DriftPolicy, Seasons, SharpRule

inputs = DriftPolicy(
    service="desk",
    description="Each served feature against the days before.",
    min_rows=20,
    seasons=Seasons(recent_days=28, min_days=3),
    sharp=SharpRule(min_distance=0.45, odds=1.5),
)
