"""How the carrier's departures from the airport are going."""

from datetime import timedelta

import polars as pl

from feature_defs.entities import carrier, origin
from ml_platform.spec import FeatureView, Window

SPANS = (timedelta(hours=3), timedelta(hours=24))

origin_carrier_departures = FeatureView(
    source="flight_departures",
    entities=(origin, carrier),
    description="The carrier's departures from the airport: how many, mean delay, share 15 minutes late or more.",
    derive={"late": pl.col("dep_delay") >= 15},
    features=(
        Window("dep_delay", "count", over=SPANS),
        Window("dep_delay", "mean", over=SPANS),
        Window("late", "share", over=SPANS),
    ),
)
