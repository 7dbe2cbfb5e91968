"""How the same aircraft fared on the flights before."""

from datetime import timedelta

from feature_defs.entities import tailnum
from ml_platform.spec import FeatureView, Window

DAY = (timedelta(days=1),)

previous_leg = FeatureView(
    source="flight_outcomes",
    entities=(tailnum,),
    description="The aircraft's arrivals of the last 24 hours: the newest delay, the mean, how many.",
    features=(
        Window("arr_delay", "last", over=DAY),
        Window("arr_delay", "mean", over=DAY),
        Window("arr_delay", "count", over=DAY),
    ),
)
