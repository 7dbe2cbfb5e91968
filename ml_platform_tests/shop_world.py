"""A small source: the sales of two shops, as a frame in memory."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.spec import (
    SourceTable,
)
from ml_platform.spec import expectations as gxe
from ml_platform.spec.calendar import day_start

UTC_TIME = pl.Datetime("us", "UTC")
NY = "America/New_York"
COLUMNS = {"id": pl.String, "value": pl.Int64, "colour": pl.String, "shop": pl.String, "known_at": UTC_TIME}
SHOPS = pl.DataFrame({"shop": ["north", "south"]})
D1, D2, D3 = date(2024, 3, 9), date(2024, 3, 10), date(2024, 3, 11)  # clocks change on the second one
LATER = datetime(2024, 5, 1, tzinfo=UTC)


def at(day: date, hour: float) -> datetime:
    return day_start(day, NY) + timedelta(hours=hour)


def frame(*rows: tuple[Any, ...]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def sales(day: date, count: int, *, prefix: str = "s") -> pl.DataFrame:
    return frame(*((f"{prefix}{day:%d}-{n:03}", n % 10, "red", "north", at(day, n * 23 / count)) for n in range(count)))


def table(rows: pl.DataFrame | Callable[[], pl.DataFrame], **changes: Any) -> SourceTable:
    """A source over a frame in memory."""
    load = rows if callable(rows) else lambda: rows

    def read(start: datetime, end: datetime) -> pl.DataFrame:
        return load().filter(pl.col("known_at").is_between(start, end, closed="left"))

    declared = SourceTable(
        name="sales",
        read=read,
        columns=COLUMNS,
        key=("id",),
        description="Sales of two shops.",
        known_at_source="the till",
        rules=(
            *gxe.ExpectColumnValuesToNotBeNull.each("id"),
            gxe.ExpectColumnValuesToBeBetween(column="value", min_value=0, max_value=9),
            gxe.ExpectColumnValuesToBeInSet(column="colour", value_set=("red", "blue")),
            gxe.ExpectColumnValuesToReferTo(column="shop", table="shops", other="shop"),
            gxe.ExpectInvariantToHold(name="blue_is_small", holds=(pl.col("colour") != "blue") | (pl.col("value") < 5)),
        ),
        max_quarantined=0.1,
        fresh_within=timedelta(hours=26),
    )
    return replace(declared, **changes)
