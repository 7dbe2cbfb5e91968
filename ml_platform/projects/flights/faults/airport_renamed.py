"""A destination under a code of another kind."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import renamed

airport_renamed = Fault(
    kind="code renamed",
    description="The timetable writes Chicago by its ICAO code, KORD instead of ORD.",
    caught="a destination that is no airport",
    table="flight_schedules",
    columns=("dest",),
    wrong=renamed("dest", "ORD", "KORD"),
)
