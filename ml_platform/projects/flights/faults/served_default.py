"""Online a default, offline nothing."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import value

served_default = Fault(
    kind="served differently: a default",
    description="For an aircraft that did not fly yesterday the service answers by a delay of 0 instead of a missing "
    "one.",
    caught="a served value that is not the recomputed one",
    columns=("previous_leg__arr_delay_last_1d",),
    wrong=value("previous_leg__arr_delay_last_1d", pl.col("previous_leg__arr_delay_last_1d").fill_null(0)),
    due="skew",
)
