"""How many flights should have left the airport, and how many of them have not."""

from datetime import timedelta

from feature_defs.entities import origin
from ml_platform.spec import Active, FeatureView, Window

SIX_HOURS = timedelta(hours=6)

origin_demand = FeatureView(
    source="flight_schedules",
    entities=(origin,),
    time="sched_dep",
    description="Flights scheduled to leave in the last six hours, and those of them that have not gone yet.",
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
