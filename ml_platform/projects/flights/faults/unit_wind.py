"""A speed in another unit, whose values are all possible ones."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import scaled

unit_wind = Fault(
    kind="unit change",
    description="Wind speeds arrive in metres a second instead of miles an hour.",
    caught="speeds that are no whole knots",
    table="weather",
    columns=("wind_speed",),
    wrong=scaled("wind_speed", 0.44704),
)
