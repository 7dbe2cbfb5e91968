"""Flights that left, known as they leave: a departure's delay is known hours before the arrival's."""

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
    minute_of_day,
    minutes,
    reader,
)
from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe

_KEY = ("flight_id",)
_NEEDED = ("flight_id", "carrier", "flight", "origin", "dest", "tailnum", "sched_dep", "dep_delay", "known_at")
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
        *gxe.ExpectColumnValuesToNotBeNull.each(*_NEEDED),
        gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=ORIGINS),
        gxe.ExpectColumnValuesToReferTo(column="carrier", table="airlines", other="carrier"),
        gxe.ExpectColumnValuesToBeBetween(column="dep_delay", min_value=-60, max_value=1440),
        gxe.ExpectColumnValuesToBeBetween(column="dep_time", min_value=1, max_value=2400),
        gxe.ExpectInvariantToHold(name="flight_id_agrees", holds=pl.col("flight_id") == FLIGHT_ID, action="stop"),
        # A change of unit or sign, or a shifted clock, breaks these on nearly every row.
        gxe.ExpectInvariantToHold(
            name="clock_agrees_with_delay",
            holds=(_LOCAL_MINUTE - minute_of_day("dep_time")) % 1440 == 0,
            action="stop",
        ),
        gxe.ExpectInvariantToHold(
            name="known_at_departure",
            holds=pl.col("known_at") == pl.col("sched_dep") + minutes("dep_delay"),
            action="stop",
        ),
        *DESTINATIONS_KNOWN,
        gxe.ExpectColumnDistinctValuesToContainSet(column="origin", value_set=ORIGINS),
        # A blizzard left a third of an airport's departures, and none after 15:20.
        gxe.ExpectTableRowCountToBeUsual(by=("origin",), min_ratio=0.2, max_ratio=1.6),
        gxe.ExpectTableToBeFresh(by=("origin",), within=timedelta(hours=10)),
    ),
    fresh_within=timedelta(hours=26),
)
