"""How many of the airport's flights are cancelled."""

from datetime import timedelta

from feature_defs.entities import origin
from ml_platform.spec import FeatureView, Window

origin_cancellations = FeatureView(
    source="flight_outcomes",
    entities=(origin,),
    description="Share of cancellations among the airport's flights whose end is known.",
    features=(Window("cancelled", "share", over=(timedelta(hours=3), timedelta(hours=24))),),
)
