"""A delay in another unit."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import scaled

unit_hours = Fault(
    kind="unit change",
    description="Arrival delays arrive in hours instead of minutes.",
    caught="clock times and delays do not add up",
    table="flight_outcomes",
    columns=("arr_delay",),
    wrong=scaled("arr_delay", 1 / 60),
)
