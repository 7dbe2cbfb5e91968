"""A source that answers and has nothing."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import kept

feed_stopped = Fault(
    kind="feed stopped",
    description="The weather's source answers, but with no row.",
    caught="a day without a row",
    table="weather",
    wrong=kept(pl.lit(False)),
)
