"""When a trip leaves by the clock on the wall, how long before it is asked, and how lively its line has been."""

import polars as pl

from ml_platform.spec import Computed, RequestView

_LOCAL = pl.col("happens_at").dt.convert_time_zone("America/New_York")

leaving = RequestView(
    request={"happens_at": "timestamp"},
    description="Whether it leaves at night; minutes from asking to leaving; share of the line's trips of a day that "
    "ended in the last six hours, missing for a line without any.",
    features=(
        Computed("at_night", _LOCAL.dt.hour() < 6, "int64"),
        Computed("notice", (pl.col("happens_at") - pl.col("asked_at")).dt.total_minutes(fractional=True)),
        Computed("of_late", pl.col("line_past__minutes_late_count_6h") / pl.col("line_past__minutes_late_count_1d")),
    ),
)
