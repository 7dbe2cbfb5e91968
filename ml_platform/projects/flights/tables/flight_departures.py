"""Flights that left, known as they leave: a departure's delay is known hours before the arrival's."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from ml_platform.projects.flights.nycflights13 import (
    LOCAL,
    ORIGINS,
    UTC_TIME,
    flights,
    minute_of_day,
    minutes,
    reader,
)
from ml_platform.spec import SourceTable, between, invariant, is_in, not_null, refers_to

_KEY = ("flight_id",)
_LOCAL_DEP = (pl.col("sched_dep") + minutes("dep_delay")).dt.convert_time_zone(LOCAL)
_LOCAL_MINUTE = _LOCAL_DEP.dt.hour().cast(pl.Int64) * 60 + _LOCAL_DEP.dt.minute()


def _rows(folder: Path) -> pl.DataFrame:
    return (
        flights(folder)
        .filter(~pl.col("cancelled"))
        .select(
            *("flight_id", "carrier", "flight", "origin", "dest", "tailnum", "sched_dep", "dep_time", "dep_delay"),
            known_at="departed_at",
        )
    )


flight_departures = SourceTable(
    description="One row a flight that left: dep_time on New York clocks (HHMM), dep_delay in minutes.",
    read=reader(_rows, _KEY),
    columns={
        "flight_id": pl.String,
        "carrier": pl.String,
        "flight": pl.Int64,
        "origin": pl.String,
        "dest": pl.String,
        "tailnum": pl.String,
        "sched_dep": UTC_TIME,
        "dep_time": pl.Int64,
        "dep_delay": pl.Int64,
        "known_at": UTC_TIME,
    },
    key=_KEY,
    known_at_source="the departure",
    rules=(
        *not_null("flight_id", "carrier", "flight", "origin", "dest", "tailnum", "sched_dep", "dep_delay", "known_at"),
        is_in("origin", ORIGINS),
        refers_to("carrier", "airlines", "carrier"),
        between("dep_delay", -60, 1440),
        between("dep_time", 1, 2400),
        # A change of unit or sign, or a shifted clock, breaks this on nearly every row.
        invariant("clock_agrees_with_delay", (_LOCAL_MINUTE - minute_of_day("dep_time")) % 1440 == 0, action="stop"),
        invariant(
            "known_at_departure", pl.col("known_at") == pl.col("sched_dep") + minutes("dep_delay"), action="stop"
        ),
    ),
    fresh_within=timedelta(hours=26),
)
