"""How late the same aircraft left, which is known hours before it arrives."""

from datetime import timedelta

from feature_defs.entities import tailnum
from ml_platform.spec import FeatureView, Window

DAY = (timedelta(days=1),)

previous_departure = FeatureView(
    source="flight_departures",
    entities=(tailnum,),
    description="The aircraft's newest departure delay of the last 24 hours, and how many departures.",
    features=(Window("dep_delay", "last", over=DAY), Window("dep_delay", "count", over=DAY)),
)
