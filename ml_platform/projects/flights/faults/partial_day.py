"""A day that ends at three in the afternoon."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import kept

partial_day = Fault(
    kind="partial day",
    description="Of departures after three in the afternoon nothing is heard.",
    caught="when the day is closed, its newest row is nine hours old, and a third of the rows is missing",
    table="flight_departures",
    wrong=kept(pl.col("known_at").dt.convert_time_zone("America/New_York").dt.hour() < 15),
)
