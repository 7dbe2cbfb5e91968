"""One of three airports falls silent."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import kept

origin_lost_departures = Fault(
    kind="one origin lost",
    description="Newark's departures are lost.",
    caught="an airport without a departure",
    table="flight_departures",
    wrong=kept(pl.col("origin") != "EWR"),
)
