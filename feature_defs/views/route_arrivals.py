"""How the route has been going."""

from datetime import timedelta

import polars as pl

from feature_defs.entities import dest, origin
from ml_platform.spec import FeatureView, Window

SPANS = (timedelta(days=14),)

route_arrivals = FeatureView(
    source="flight_outcomes",
    entities=(origin, dest),
    description="Arrivals on the route in two weeks: mean delay in minutes, share 15 minutes late or more.",
    derive={"late": pl.col("arr_delay") >= 15},
    features=(
        Window("arr_delay", "mean", over=SPANS),
        Window("late", "share", over=SPANS),
    ),
)
