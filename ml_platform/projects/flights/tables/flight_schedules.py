"""What the timetable says, known the day before."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from ml_platform.projects.flights.nycflights13 import (
    DESTINATIONS_KNOWN,
    FLIGHT_ID,
    LOCAL,
    ORIGINS,
    UTC_TIME,
    flights,
    noon_before,
    reader,
)
from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe

_KEY = ("flight_id",)
_DEP = pl.col("sched_dep")
_LOCAL_DEP = _DEP.dt.convert_time_zone(LOCAL)
_NEEDED = ("flight_id", "carrier", "flight", "origin", "dest", "sched_dep", "sched_arr", "known_at")
_CLOCKS = {
    "hour_agrees_with_utc": pl.col("hour") == _LOCAL_DEP.dt.hour(),
    "sched_hour_agrees": pl.col("sched_hour") == _DEP.dt.truncate("1h").dt.epoch("s"),
    "weekday_agrees": pl.col("weekday") == _LOCAL_DEP.dt.weekday(),
    "known_at_noon_before": pl.col("known_at") == noon_before("sched_dep"),
}


def _rows(folder: Path) -> pl.DataFrame:
    return flights(folder).select(
        *("flight_id", "carrier", "flight", "origin", "dest", "tailnum", "sched_dep", "sched_arr"),
        _DEP.dt.truncate("1h").dt.epoch("s").alias("sched_hour"),
        "hour",
        _LOCAL_DEP.dt.weekday().cast(pl.Int64).alias("weekday"),
        pl.col("distance").cast(pl.Float64),
        "sched_minutes",
        noon_before("sched_dep").alias("known_at"),
    )


flight_schedules = SourceTable(
    description="One row a scheduled flight: distance in miles, sched_minutes from gate to gate, hour and weekday "
    "(Monday is 1) in New York, sched_hour in unix seconds (UTC). tailnum is missing on some flights later cancelled.",
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
        "sched_hour": pl.Int64,
        "hour": pl.Int64,
        "weekday": pl.Int64,
        "distance": pl.Float64,
        "sched_minutes": pl.Int64,
        "known_at": UTC_TIME,
    },
    key=_KEY,
    known_at_source="assumed: noon in New York on the day before, or the project's first instant",
    rules=(
        *gxe.ExpectColumnValuesToNotBeNull.each(*_NEEDED),
        gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=ORIGINS),
        gxe.ExpectColumnValuesToReferTo(column="carrier", table="airlines", other="carrier"),
        gxe.ExpectColumnValuesToBeBetween(column="distance", min_value=10, max_value=5100),
        gxe.ExpectColumnValuesToBeBetween(column="sched_minutes", min_value=20, max_value=960),
        gxe.ExpectColumnValuesToBeBetween(column="hour", min_value=0, max_value=23),
        gxe.ExpectColumnValuesToBeBetween(column="weekday", min_value=1, max_value=7),
        gxe.ExpectInvariantToHold(name="flight_id_agrees", holds=pl.col("flight_id") == FLIGHT_ID),
        gxe.ExpectInvariantToHold(
            name="duration_agrees", holds=pl.col("sched_arr") == _DEP + pl.duration(minutes="sched_minutes")
        ),
        *(gxe.ExpectInvariantToHold(name=name, holds=holds, action="stop") for name, holds in _CLOCKS.items()),
        *DESTINATIONS_KNOWN,
        # Another unit; two routes differ by a mile from day to day.
        gxe.ExpectColumnValuesToBeConstantWithin(column="distance", by=("origin", "dest"), tolerance=0.01),
        gxe.ExpectColumnDistinctValuesToContainSet(column="origin", value_set=ORIGINS),
        gxe.ExpectTableRowCountToBeUsual(by=("origin",), min_ratio=0.45, max_ratio=1.6),
    ),
    fresh_within=timedelta(hours=26),
)
