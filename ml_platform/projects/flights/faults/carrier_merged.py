"""A code that exists, of somebody else."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import renamed

carrier_merged = Fault(
    kind="code renamed",
    description="AirTran's departures are written under WN, as after their merger.",
    caught="the flight's id names another carrier",
    table="flight_departures",
    columns=("carrier",),
    wrong=renamed("carrier", "FL", "WN"),
)
