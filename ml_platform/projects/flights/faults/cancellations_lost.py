"""Bad news are not passed on."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import kept

cancellations_lost = Fault(
    kind="rows lost by kind",
    description="Cancelled flights have no outcome any more.",
    caught="flights that wait for their truth for ever",
    table="flight_outcomes",
    wrong=kept(~pl.col("cancelled")),
    due="performance",
)
