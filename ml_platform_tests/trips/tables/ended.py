"""How trips ended, known as they end."""

from datetime import timedelta

import polars as pl

from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe
from ml_platform_tests.trips.world import UTC_TIME, reader

ended = SourceTable(
    description="One row an ended trip: minutes_late is null where it was cancelled.",
    read=reader(("trip", "line", "minutes_late"), "ended_at"),
    columns={"trip": pl.String, "line": pl.String, "minutes_late": pl.Int64, "known_at": UTC_TIME},
    key=("trip",),
    known_at_source="the arrival",
    rules=(
        *gxe.ExpectColumnValuesToNotBeNull.each("trip"),
        *gxe.ExpectColumnValuesToNotBeNull.each("line", action="stop"),
    ),
    fresh_within=timedelta(hours=26),
)
