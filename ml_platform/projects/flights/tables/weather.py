"""Hourly weather at the three airports."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.projects.flights.nycflights13 import LOCAL, ORIGINS, UTC_TIME, read_file, reader, utc
from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe

_KEY = ("origin", "observed_at")
_MEASURED = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
_DELAY = timedelta(hours=1)
_POSSIBLE = {
    "temp": (-30, 120),
    "dewp": (-50, 90),
    "humid": (0, 100),
    "wind_dir": (0, 360),
    "wind_speed": (0, 150),  # a category 5 hurricane starts at 157 mph
    "wind_gust": (10, 200),  # weaker ones are none, and are not reported: a zero is a missing value
    "precip": (0, 6),
    "pressure": (930, 1070),
    "visib": (0, 10),
}
# What instruments count in: whole knots, tenths of a degree Celsius, hundredths of an inch. Another unit does not.
_KNOT_MPH = 1.15077945
_IN_STEPS = {
    "wind_speed": pl.col("wind_speed") / _KNOT_MPH,
    "wind_gust": pl.col("wind_gust") / _KNOT_MPH,
    "temp": (pl.col("temp") - 32) / 0.18,
    "dewp": (pl.col("dewp") - 32) / 0.18,
    "precip": pl.col("precip") * 100,
}
# Shares of a day's values that are there at least, below the least of 2013, and one more than its longest runs.
_THERE = {"temp": 0.9, "dewp": 0.9, "humid": 0.9, "wind_speed": 0.9, "wind_dir": 0.75, "pressure": 0.3, "visib": 0.9}
_RUNS = {"temp": 15, "dewp": 16, "humid": 14, "wind_speed": 12, "wind_dir": 14, "pressure": 8}
_RUNS_BESIDES = {"visib": (18, 10.0), "precip": (8, 0.0)}  # clear and dry days are long
_HOURLY: dict[str, Any] = {"by": ("origin",), "time": "observed_at", "within": _DELAY}
_LOCAL_HOUR = pl.col("observed_at").dt.convert_time_zone(LOCAL).dt.hour()


def _whole(count: pl.Expr) -> pl.Expr:
    return (count - count.round()).abs() < 0.01


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
        *gxe.ExpectColumnValuesToBeFinite.each(*_MEASURED),
        gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=ORIGINS),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
            for name, (low, high) in _POSSIBLE.items()
        ),
        gxe.ExpectInvariantToHold(name="dewp_not_above_temp", holds=pl.col("dewp") <= pl.col("temp") + 0.2),  # rounded
        gxe.ExpectInvariantToHold(
            name="local_hour_agrees_with_utc", holds=pl.col("hour") == _LOCAL_HOUR, action="stop"
        ),
        gxe.ExpectInvariantToHold(
            name="known_one_hour_after", holds=pl.col("known_at") == pl.col("observed_at") + _DELAY, action="stop"
        ),
        # From here on the rows stay, and what uses the columns waits: one value is possible, a day of them is not.
        *(
            gxe.ExpectInvariantToHold(name=f"{name}_in_its_steps", holds=_whole(value), mostly=0.95)
            for name, value in _IN_STEPS.items()
        ),
        *(
            gxe.ExpectInvariantToHold(name=f"{name}_has_decimals", holds=pl.col(name) % 1 != 0, mostly=0.4)
            for name in ("temp", "pressure")
        ),
        *(
            gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=share, name=f"{name}_mostly_there")
            for name, share in _THERE.items()
        ),
        *(
            gxe.ExpectColumnValueRunsToBeAtMost(column=name, longest=longest, by=("origin",))
            for name, longest in _RUNS.items()
        ),
        *(
            gxe.ExpectColumnValueRunsToBeAtMost(column=name, longest=longest, besides=(usual,), by=("origin",))
            for name, (longest, usual) in _RUNS_BESIDES.items()
        ),
        # Values of another hour or another airport jump.
        gxe.ExpectColumnValueStepsToBeAtMost(column="temp", largest=8, mostly=0.85, **_HOURLY),
        gxe.ExpectColumnValueStepsToBeAtMost(column="humid", largest=10, mostly=0.7, **_HOURLY),
        gxe.ExpectColumnDistinctValuesToContainSet(column="origin", value_set=ORIGINS),
        gxe.ExpectTableRowCountToBeUsual(by=("origin",), min_ratio=0.8, max_ratio=1.2),
        gxe.ExpectTableToBeFresh(by=("origin",), within=timedelta(hours=5, minutes=30)),
    ),
    fresh_within=timedelta(hours=26),
)
