"""How this flight number has been going."""

from datetime import timedelta

import polars as pl

from feature_defs.entities import carrier, flight
from ml_platform.spec import FeatureView, Window

SPANS = (timedelta(days=28),)

flight_number_arrivals = FeatureView(
    source="flight_outcomes",
    entities=(carrier, flight),
    description="The flight number's arrivals in four weeks: mean delay in minutes, share 15 minutes late or more.",
    derive={"late": pl.col("arr_delay") >= 15},
    features=(
        Window("arr_delay", "mean", over=SPANS),
        Window("late", "share", over=SPANS),
    ),
)
