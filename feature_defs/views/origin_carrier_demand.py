"""How many of the carrier's flights should have left the airport, and how many of them have not."""

from datetime import timedelta

from feature_defs.entities import carrier, origin
from ml_platform.spec import Active, FeatureView, Window

SIX_HOURS = timedelta(hours=6)

origin_carrier_demand = FeatureView(
    source="flight_schedules",
    entities=(origin, carrier),
    time="sched_dep",
    description="The carrier's flights scheduled to leave in the last six hours, and those that have not gone yet.",
    features=(
        Window("flight_id", "count", over=(SIX_HOURS,), name="scheduled"),
        Active(
            opened_at="sched_dep",
            closed_by=("flight_departures", "flight_outcomes"),
            key=("flight_id",),
            expires_after=SIX_HOURS,
            name="waiting",
        ),
    ),
)
