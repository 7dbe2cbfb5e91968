"""Online events count from when they came, offline from when they were known."""

from datetime import timedelta

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import shifted

stream_lags = Fault(
    kind="served differently: events late",
    description="Departures reach the live windows ten minutes late and are stamped with that; the raw table is right.",
    caught="a served window that is not the recomputed one",
    table="flight_departures",
    columns=("known_at",),
    wrong=shifted("known_at", by=timedelta(minutes=10)),
    live=True,
    due="skew",
)
