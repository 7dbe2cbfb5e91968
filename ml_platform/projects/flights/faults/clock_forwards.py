"""Local time taken for UTC, the other way round."""

from datetime import timedelta

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import shifted

clock_forwards = Fault(
    kind="clock shifted forwards",
    description="All moments of the outcomes are five hours late, in agreement with each other.",
    caught="the scheduled moments are not those of the clocks, or not those of the timetable",
    table="flight_outcomes",
    columns=("sched_dep", "sched_arr", "known_at"),
    wrong=shifted("sched_dep", "sched_arr", "known_at", by=timedelta(hours=5)),
)
