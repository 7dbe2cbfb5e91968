"""Groups of flights that every report of this project shows, and that no challenger may lose."""

import polars as pl

from ml_platform.spec import Slice

ALL = {
    "carrier": Slice(by=pl.col("carrier")),
    "origin": Slice(by=pl.col("origin")),
    "hour": Slice(by=pl.col("happens_at").dt.hour()),
    "distance": Slice(by=pl.col("scheduled_flight__distance"), bands=(500, 1000, 2000)),
    "month": Slice(by=pl.col("happens_at").dt.month()),
}
