"""What is planned, known five days ahead."""

from datetime import timedelta

import polars as pl

from ml_platform.spec import SourceTable, between, not_null
from ml_platform_tests.trips.world import UTC_TIME, reader

asked = SourceTable(
    description="One row a planned trip.",
    read=reader(("trip", "line", "miles", "leaves"), "planned_at"),
    columns={"trip": pl.String, "line": pl.String, "miles": pl.Float64, "leaves": UTC_TIME, "known_at": UTC_TIME},
    key=("trip",),
    known_at_source="the plan",
    rules=(*not_null("trip", "leaves"), between("miles", 0, 100)),
    fresh_within=timedelta(hours=26),
)
