"""Online another time zone than offline."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import value

served_time_zone = Fault(
    kind="served differently: a time zone",
    description="The service takes the minute of departure from UTC instead of New York.",
    caught="a served value that is not the recomputed one",
    columns=("local_departure__minute",),
    wrong=value("local_departure__minute", (pl.col("local_departure__minute") + 240) % 1440),
    due="skew",
)
