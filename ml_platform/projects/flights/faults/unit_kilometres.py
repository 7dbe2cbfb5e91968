"""A distance in another unit, whose values are all possible ones."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import scaled

unit_kilometres = Fault(
    kind="unit change",
    description="The timetable's distances arrive in kilometres instead of miles.",
    caught="the day's distances are not those of the weeks before; a rule that a route keeps its length would "
    "say so, too",
    table="flight_schedules",
    columns=("distance",),
    wrong=scaled("distance", 1.609344),
    due="profile",
)
