"""What is planned, known five days ahead."""

from datetime import timedelta

import polars as pl

from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe
from ml_platform_tests.trips.world import UTC_TIME, reader

asked = SourceTable(
    description="One row a planned trip.",
    read=reader(("trip", "line", "miles", "leaves"), "planned_at"),
    columns={"trip": pl.String, "line": pl.String, "miles": pl.Float64, "leaves": UTC_TIME, "known_at": UTC_TIME},
    key=("trip",),
    known_at_source="the plan",
    rules=(
        *gxe.ExpectColumnValuesToNotBeNull.each("trip", "leaves"),
        gxe.ExpectColumnValuesToBeBetween(column="miles", min_value=0, max_value=100),
    ),
    fresh_within=timedelta(hours=26),
)
