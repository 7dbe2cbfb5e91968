"""A source that does not answer."""

from ml_platform.spec import Fault

feed_unreadable = Fault(
    kind="feed stopped",
    description="The source of departures cannot be read.",
    caught="the day's table is not made, and passes its deadline two hours later",
    table="flight_departures",
    unreadable=True,
    due="freshness",
)
