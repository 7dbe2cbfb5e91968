"""When the flight is to leave by the clocks of its airport."""

import polars as pl

from ml_platform.spec import Computed, RequestView

_LOCAL = pl.col("happens_at").dt.convert_time_zone("America/New_York")
_HOUR, _MINUTE = _LOCAL.dt.hour().cast(pl.Int64), _LOCAL.dt.minute()  # an hour of 8 bits would overflow in minutes

local_departure = RequestView(
    request={"happens_at": "timestamp"},
    description="Minutes from New York's midnight to the scheduled departure.",
    features=(Computed("minute", 60 * _HOUR + _MINUTE, "int64"),),
)
