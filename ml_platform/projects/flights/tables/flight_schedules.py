"""What the timetable says, known the day before."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from ml_platform.projects.flights.nycflights13 import LOCAL, ORIGINS, UTC_TIME, flights, noon_before, reader
from ml_platform.spec import SourceTable, between, invariant, is_in, not_null, refers_to

_KEY = ("flight_id",)
_DEP = pl.col("sched_dep")
_LOCAL_DEP = _DEP.dt.convert_time_zone(LOCAL)
_ID = pl.format("{}{}-{}-{}", "carrier", "flight", "origin", _LOCAL_DEP.dt.strftime("%Y%m%d"))


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
        *not_null("flight_id", "carrier", "flight", "origin", "dest", "sched_dep", "sched_arr", "known_at"),
        is_in("origin", ORIGINS),
        refers_to("carrier", "airlines", "carrier"),
        between("distance", 10, 5100),
        between("sched_minutes", 20, 960),
        between("hour", 0, 23),
        between("weekday", 1, 7),
        invariant("flight_id_agrees", pl.col("flight_id") == _ID),
        invariant("duration_agrees", pl.col("sched_arr") == _DEP + pl.duration(minutes="sched_minutes")),
        invariant("hour_agrees_with_utc", pl.col("hour") == _LOCAL_DEP.dt.hour(), action="stop"),
        invariant("sched_hour_agrees", pl.col("sched_hour") == _DEP.dt.truncate("1h").dt.epoch("s"), action="stop"),
        invariant("weekday_agrees", pl.col("weekday") == _LOCAL_DEP.dt.weekday(), action="stop"),
        invariant("known_at_noon_before", pl.col("known_at") == noon_before("sched_dep"), action="stop"),
    ),
    fresh_within=timedelta(hours=26),
)
