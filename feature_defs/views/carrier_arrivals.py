"""How the carrier's arrivals are going."""

from datetime import timedelta

import polars as pl

from feature_defs.entities import carrier
from ml_platform.spec import FeatureView, Window

SPANS = (timedelta(hours=24), timedelta(days=7))

carrier_arrivals = FeatureView(
    source="flight_outcomes",
    entities=(carrier,),
    description="The carrier's arrivals: mean delay in minutes, share 15 minutes late or more.",
    derive={"late": pl.col("arr_delay") >= 15},
    features=(
        Window("arr_delay", "mean", over=SPANS),
        Window("late", "share", over=SPANS),
    ),
)
