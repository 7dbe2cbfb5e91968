"""Weekdays counted from Sunday."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import value

weekday_off = Fault(
    kind="code renamed",
    description="The timetable counts weekdays from Sunday instead of Monday.",
    caught="the weekday is not that of the date",
    table="flight_schedules",
    columns=("weekday",),
    wrong=value("weekday", pl.col("weekday") % 7 + 1),
)
