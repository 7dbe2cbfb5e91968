"""How every flight ended, known as it ends."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from ml_platform.projects.flights.nycflights13 import (
    AIRCRAFT_KEEP_CARRIER,
    DESTINATIONS_KNOWN,
    FLIGHT_ID,
    ORIGINS,
    UTC_TIME,
    flights,
    minute_of_day,
    minutes,
    reader,
)
from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe

_KEY = ("flight_id",)
_NEEDED = ("flight_id", "carrier", "flight", "origin", "dest", "sched_dep", "sched_arr", "known_at")
_ENDINGS = ("cancelled", "diverted")
_DECLARED_AFTER = timedelta(hours=1)  # when a cancellation or a diversion is known: an assumption
_ARRIVED = pl.col("arr_delay").is_not_null()
_CLOCK_MINUTES = minute_of_day("sched_arr_time") + pl.col("arr_delay") - minute_of_day("arr_time")

# Minutes from a destination's clock to UTC: Puerto Rico and New York to Hawaii, summer and winter.
_ZONES = [240, 300, 360, 420, 480, 600]
_UTC_ARRIVAL = pl.col("sched_arr").dt.hour().cast(pl.Int64) * 60 + pl.col("sched_arr").dt.minute()
_OFFSET = (_UTC_ARRIVAL - minute_of_day("sched_arr_time")) % 1440


def _rows(folder: Path) -> pl.DataFrame:
    ended = (
        pl.when("cancelled")
        .then(pl.col("sched_dep") + _DECLARED_AFTER)
        .when("diverted")
        .then(pl.max_horizontal("sched_arr", "departed_at") + _DECLARED_AFTER)
        .otherwise("arrived_at")
    )
    return flights(folder).select(
        *("flight_id", "carrier", "flight", "origin", "dest", "tailnum", "sched_dep", "sched_arr", "sched_arr_time"),
        *("arr_time", "arr_delay", "cancelled", "diverted"),
        ended.alias("known_at"),
    )


flight_outcomes = SourceTable(
    description="One row a flight: arr_delay in minutes (null unless it arrived), cancelled, diverted; "
    "sched_arr_time and arr_time on the destination's clock (HHMM).",
    read=reader(_rows, _KEY),
    columns={
        "flight_id": pl.String,
        "carrier": pl.String,
        "flight": pl.Int64,
        "origin": pl.String,
        "dest": pl.String,
        "tailnum": pl.String,
        "sched_dep": UTC_TIME,
        "sched_arr": UTC_TIME,
        "sched_arr_time": pl.Int64,
        "arr_time": pl.Int64,
        "arr_delay": pl.Int64,
        "cancelled": pl.Boolean,
        "diverted": pl.Boolean,
        "known_at": UTC_TIME,
    },
    key=_KEY,
    known_at_source="the arrival; assumed for cancelled flights (60 minutes after the scheduled departure) and "
    "diverted ones (60 minutes after the later of scheduled arrival and departure)",
    rules=(
        *gxe.ExpectColumnValuesToNotBeNull.each(*_NEEDED, *_ENDINGS),
        gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=ORIGINS),
        gxe.ExpectColumnValuesToReferTo(column="carrier", table="airlines", other="carrier"),
        gxe.ExpectColumnValuesToBeBetween(column="arr_delay", min_value=-120, max_value=1440),
        gxe.ExpectColumnValuesToBeBetween(column="arr_time", min_value=1, max_value=2400),
        gxe.ExpectInvariantToHold(
            name="one_ending", holds=_ARRIVED.cast(pl.Int8) + pl.col("cancelled") + pl.col("diverted") == 1
        ),
        gxe.ExpectInvariantToHold(name="flight_id_agrees", holds=pl.col("flight_id") == FLIGHT_ID, action="stop"),
        # A change of unit or sign, or a shifted clock, breaks these on nearly every row.
        gxe.ExpectInvariantToHold(name="clock_agrees_with_delay", holds=_CLOCK_MINUTES % 1440 == 0, action="stop"),
        gxe.ExpectInvariantToHold(
            name="known_at_arrival",
            holds=pl.col("known_at") == pl.col("sched_arr") + minutes("arr_delay"),
            action="stop",
        ),
        gxe.ExpectInvariantToHold(
            name="known_after_the_event",
            holds=_ARRIVED | (pl.col("known_at") >= pl.col("sched_dep") + _DECLARED_AFTER),
            action="stop",
        ),
        # All clocks shifted together leave the rules above alone, but not the destination's distance to UTC.
        gxe.ExpectInvariantToHold(name="destination_keeps_its_zone", holds=_OFFSET.is_in(_ZONES), action="stop"),
        *DESTINATIONS_KNOWN,
        AIRCRAFT_KEEP_CARRIER,
        gxe.ExpectColumnDistinctValuesToContainSet(column="origin", value_set=ORIGINS),
        gxe.ExpectTableRowCountToBeUsual(by=("origin",), min_ratio=0.45, max_ratio=1.6),
        gxe.ExpectTableToBeFresh(by=("origin",), within=timedelta(hours=4)),
    ),
    fresh_within=timedelta(hours=26),
)
