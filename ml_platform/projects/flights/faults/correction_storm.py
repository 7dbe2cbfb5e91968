"""Everything is corrected, wrongly."""

from datetime import timedelta

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import redelivered

correction_storm = Fault(
    kind="late correction storm",
    description="Three hours after each outcome a correction comes: ten minutes less delay.",
    caught="a correction that does not agree with the clock times",
    table="flight_outcomes",
    wrong=redelivered("arr_delay", pl.col("arr_delay") - 10, after=timedelta(hours=3)),
)
