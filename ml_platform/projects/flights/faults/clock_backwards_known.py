"""The future leaks through one column."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import value

clock_backwards_known = Fault(
    kind="clock shifted backwards",
    description="Arrivals are stamped as known at the scheduled arrival, however late they were.",
    caught="known before it happened",
    table="flight_outcomes",
    columns=("known_at",),
    wrong=value("known_at", pl.min_horizontal("known_at", "sched_arr")),
)
