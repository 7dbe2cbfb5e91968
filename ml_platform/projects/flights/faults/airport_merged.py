"""A destination under the code of its city, which exists."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import renamed

airport_merged = Fault(
    kind="code renamed",
    description="The timetable writes CHI, all airports of Chicago, instead of ORD.",
    caught="a destination that nobody flew to before: its windows are empty",
    table="flight_schedules",
    columns=("dest",),
    wrong=renamed("dest", "ORD", "CHI"),
    due="profile",
)
