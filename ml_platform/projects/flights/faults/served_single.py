"""Online half of the digits."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import value

served_single = Fault(
    kind="served differently: precision",
    description="The service reads a mean delay in single precision.",
    caught="a served value that is not the recomputed one, to the bit",
    columns=("carrier_arrivals__arr_delay_mean_7d",),
    wrong=value("carrier_arrivals__arr_delay_mean_7d", pl.col("carrier_arrivals__arr_delay_mean_7d").cast(pl.Float32)),
    due="skew",
)
