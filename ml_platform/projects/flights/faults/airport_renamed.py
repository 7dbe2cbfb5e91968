"""A destination under the code of its city."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import renamed

airport_renamed = Fault(
    kind="code renamed",
    description="The timetable writes CHI instead of ORD.",
    caught="a destination that is no airport",
    table="flight_schedules",
    columns=("dest",),
    wrong=renamed("dest", "ORD", "CHI"),
)
