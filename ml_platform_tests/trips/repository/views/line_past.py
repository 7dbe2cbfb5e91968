"""How the line has been going."""

from datetime import timedelta

from ml_platform.spec import FeatureView, Window
from ml_platform_tests.trips.repository.entities import line

_SPANS = (timedelta(hours=6), timedelta(days=1))

line_past = FeatureView(
    source="ended",
    entities=(line,),
    description="The line's trips that ended of late: how many, and by how much they were late.",
    features=(Window("minutes_late", "mean", over=_SPANS), Window("minutes_late", "count", over=_SPANS)),
)
