"""Whether the aircraft that is to fly is still on its way to us, and how late it is."""

import polars as pl

from ml_platform.spec import Computed, RequestView

_UNDER_WAY = pl.col("previous_departure__dep_delay_count_1d") - pl.col("previous_leg__arr_delay_count_1d")
_LEFT, _ARRIVED = pl.col("previous_departure__dep_delay_last_1d"), pl.col("previous_leg__arr_delay_last_1d")

inbound_aircraft = RequestView(
    description="Of the last 24 hours, flights that the aircraft began and did not end (above 0 while it is in the "
    "air), and its newest delay in minutes: of the departure while it is in the air, else of the arrival.",
    features=(
        Computed("legs_under_way", _UNDER_WAY, "int64"),
        Computed("newest_delay", pl.when(_UNDER_WAY > 0).then(_LEFT).otherwise(_ARRIVED)),
    ),
)
