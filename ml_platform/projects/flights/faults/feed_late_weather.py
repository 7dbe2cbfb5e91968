"""Reports that come six hours late."""

from datetime import timedelta

from ml_platform.spec import Fault

feed_late_weather = Fault(
    kind="feed late",
    description="Weather reports arrive six hours late.",
    caught="when the day is closed, its newest report is seven hours old",
    table="weather",
    late=timedelta(hours=6),
    due="freshness",
)
