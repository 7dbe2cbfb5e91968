"""A station that forgot the end of winter."""

from datetime import timedelta

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import shifted

clock_forwards_weather = Fault(
    kind="clock shifted forwards",
    description="The weather's observations are dated an hour late, the local hour is right.",
    caught="local hour and moment do not agree",
    table="weather",
    columns=("observed_at", "known_at"),
    wrong=shifted("observed_at", "known_at", by=timedelta(hours=1)),
)
