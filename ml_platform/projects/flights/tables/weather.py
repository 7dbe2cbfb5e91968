"""Hourly weather at the three airports."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from ml_platform.projects.flights.nycflights13 import LOCAL, ORIGINS, UTC_TIME, read_file, reader, utc
from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe

_KEY = ("origin", "observed_at")
_MEASURED = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
_DELAY = timedelta(hours=1)
_LOCAL_HOUR = pl.col("observed_at").dt.convert_time_zone(LOCAL).dt.hour()


def _rows(folder: Path) -> pl.DataFrame:
    observed = read_file(folder, "weather.csv").with_columns(observed_at=utc("time_hour"))
    return observed.select(*_KEY, "hour", *_MEASURED, known_at=pl.col("observed_at") + _DELAY)


weather = SourceTable(
    description="Hourly reports: temp, dewp in °F, humid in %, wind in degrees and mph, precip in inches, "
    "pressure in mbar, visib in miles; hour is the local one.",
    read=reader(_rows, _KEY),
    columns={
        "origin": pl.String,
        "observed_at": UTC_TIME,
        "hour": pl.Int64,
        **dict.fromkeys(_MEASURED, pl.Float64),
        "known_at": UTC_TIME,
    },
    key=_KEY,
    known_at_source="assumed: one hour after the observation",
    rules=(
        *gxe.ExpectColumnValuesToNotBeNull.each("origin", "observed_at", "known_at"),
        gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=ORIGINS),
        gxe.ExpectColumnValuesToBeBetween(column="temp", min_value=-30, max_value=120),
        gxe.ExpectColumnValuesToBeBetween(column="dewp", min_value=-50, max_value=90),
        gxe.ExpectColumnValuesToBeBetween(column="humid", min_value=0, max_value=100),
        gxe.ExpectColumnValuesToBeBetween(column="wind_dir", min_value=0, max_value=360),
        gxe.ExpectColumnValuesToBeBetween(
            column="wind_speed", min_value=0, max_value=150
        ),  # a category 5 hurricane starts at 157 mph
        gxe.ExpectColumnValuesToBeBetween(column="wind_gust", min_value=0, max_value=200),
        gxe.ExpectColumnValuesToBeBetween(column="precip", min_value=0, max_value=6),
        gxe.ExpectColumnValuesToBeBetween(column="pressure", min_value=930, max_value=1070),
        gxe.ExpectColumnValuesToBeBetween(column="visib", min_value=0, max_value=10),
        gxe.ExpectInvariantToHold(
            name="dewp_not_above_temp", holds=pl.col("dewp") <= pl.col("temp") + 0.2
        ),  # both are rounded
        gxe.ExpectInvariantToHold(
            name="local_hour_agrees_with_utc", holds=pl.col("hour") == _LOCAL_HOUR, action="stop"
        ),
        gxe.ExpectInvariantToHold(
            name="known_one_hour_after", holds=pl.col("known_at") == pl.col("observed_at") + _DELAY, action="stop"
        ),
    ),
    fresh_within=timedelta(hours=26),
)
