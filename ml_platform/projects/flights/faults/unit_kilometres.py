"""A distance in another unit, whose values are all possible ones."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import scaled

unit_kilometres = Fault(
    kind="unit change",
    description="The timetable's distances arrive in kilometres instead of miles.",
    caught="a route of another length than the days before",
    table="flight_schedules",
    columns=("distance",),
    wrong=scaled("distance", 1.609344),
)
