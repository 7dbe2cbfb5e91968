"""Online some events are missing that offline are there."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import thinned

stream_loses_events = Fault(
    kind="served differently: events lost",
    description="One in fifty departures never reaches the live windows; the raw table has them all.",
    caught="a served window that is not the recomputed one",
    table="flight_departures",
    wrong=thinned(0.02),
    live=True,
    due="skew",
)
