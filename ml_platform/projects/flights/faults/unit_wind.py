"""A speed in another unit, whose values are all possible ones."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import scaled

unit_wind = Fault(
    kind="unit change",
    description="Wind speeds arrive in metres a second instead of miles an hour.",
    caught="the day's wind speeds lie on another grid of values than those of the weeks before",
    table="weather",
    columns=("wind_speed",),
    wrong=scaled("wind_speed", 0.44704),
    due="profile",
)
