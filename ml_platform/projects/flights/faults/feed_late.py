"""News that come half a day late."""

from datetime import timedelta

from ml_platform.spec import Fault

feed_late = Fault(
    kind="feed late",
    description="How flights ended is known twelve hours late.",
    caught="when the day is closed, its newest row is twelve hours old",
    table="flight_outcomes",
    late=timedelta(hours=12),
    due="freshness",
)
