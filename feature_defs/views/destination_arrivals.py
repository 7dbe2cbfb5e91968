"""How arrivals at the destination are going."""

from datetime import timedelta

import polars as pl

from feature_defs.entities import dest
from ml_platform.spec import FeatureView, Window

SPANS = (timedelta(hours=6), timedelta(hours=24))

destination_arrivals = FeatureView(
    source="flight_outcomes",
    entities=(dest,),
    description="Arrivals from New York at the destination: mean delay in minutes, share 15 minutes late or more.",
    derive={"late": pl.col("arr_delay") >= 15},
    features=(
        Window("arr_delay", "mean", over=SPANS),
        Window("late", "share", over=SPANS),
    ),
)
