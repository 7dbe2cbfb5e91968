"""Nothing measured, written as zero."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import value

nulls_as_zeros = Fault(
    kind="nulls as zeros",
    description="Where no gust was measured, it is written as 0.",
    caught="gusts of zero, which are none",
    table="weather",
    columns=("wind_gust",),
    wrong=value("wind_gust", pl.col("wind_gust").fill_null(0)),
)
