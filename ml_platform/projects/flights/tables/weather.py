"""Hourly weather at the three airports."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from ml_platform.projects.flights.nycflights13 import LOCAL, ORIGINS, UTC_TIME, read_file, reader, utc
from ml_platform.spec import SourceTable, between, invariant, is_in, not_null

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
        *not_null("origin", "observed_at", "known_at"),
        is_in("origin", ORIGINS),
        between("temp", -30, 120),
        between("dewp", -50, 90),
        between("humid", 0, 100),
        between("wind_dir", 0, 360),
        between("wind_speed", 0, 150),  # a category 5 hurricane starts at 157 mph
        between("wind_gust", 0, 200),
        between("precip", 0, 6),
        between("pressure", 930, 1070),
        between("visib", 0, 10),
        invariant("dewp_not_above_temp", pl.col("dewp") <= pl.col("temp") + 0.2),  # both are rounded
        invariant("local_hour_agrees_with_utc", pl.col("hour") == _LOCAL_HOUR, action="stop"),
        invariant("known_one_hour_after", pl.col("known_at") == pl.col("observed_at") + _DELAY, action="stop"),
    ),
    fresh_within=timedelta(hours=26),
)
