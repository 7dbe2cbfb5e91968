"""One of three stations falls silent."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import kept

origin_lost = Fault(
    kind="one origin lost",
    description="LaGuardia's weather reports are lost.",
    caught="an airport without a report",
    table="weather",
    wrong=kept(pl.col("origin") != "LGA"),
)
