"""The future leaks: arrivals are known before they happen."""

from datetime import timedelta

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import shifted

clock_backwards = Fault(
    kind="clock shifted backwards",
    description="All moments of the outcomes are three hours early, in agreement with each other: windows see what is "
    "still to come.",
    caught="the scheduled moments are not those of the clocks, or not those of the timetable",
    table="flight_outcomes",
    columns=("sched_dep", "sched_arr", "known_at"),
    wrong=shifted("sched_dep", "sched_arr", "known_at", by=-timedelta(hours=3)),
)
