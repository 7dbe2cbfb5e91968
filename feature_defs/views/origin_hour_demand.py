"""How busy the flight's hour is at its airport."""

from datetime import timedelta

from feature_defs.entities import origin, sched_hour
from ml_platform.spec import FeatureView, Window

origin_hour_demand = FeatureView(
    source="flight_schedules",
    entities=(origin, sched_hour),
    description="Flights scheduled at the same airport in the same hour, from the timetable of the day before.",
    # Known at noon of the day before, asked two hours before departure: at most 34 hours later.
    online_for=timedelta(days=2),
    features=(Window("flight_id", "count", over=(timedelta(days=2),), name="flights"),),
)
