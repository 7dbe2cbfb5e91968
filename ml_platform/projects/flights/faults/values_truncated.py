"""Minutes cut to tens."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import value

values_truncated = Fault(
    kind="values truncated",
    description="Arrival delays are cut to tens of minutes.",
    caught="clock times and delays do not add up",
    table="flight_outcomes",
    columns=("arr_delay",),
    wrong=value("arr_delay", pl.col("arr_delay") // 10 * 10),
)
