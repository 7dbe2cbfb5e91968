"""What the timetable says about one flight."""

from datetime import timedelta

from feature_defs.entities import flight_id
from ml_platform.spec import FeatureView, Latest

scheduled_flight = FeatureView(
    source="flight_schedules",
    entities=(flight_id,),
    description="Hour, weekday, distance and duration of a flight, from the timetable.",
    # Known at noon of the day before, asked two hours before departure: at most 34 hours later.
    online_for=timedelta(days=2),
    features=(
        Latest("hour", "int64"),
        Latest("weekday", "int64"),
        Latest("distance"),
        Latest("sched_minutes", "int64"),
    ),
)
