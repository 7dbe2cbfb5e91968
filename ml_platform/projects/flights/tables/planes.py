"""The register of aircraft."""

import polars as pl

from ml_platform.projects.flights.nycflights13 import UTC_TIME, reference_reader
from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe

planes = SourceTable(
    description="Aircraft by tail number: year of manufacture, seats, engines. 722 that fly are missing.",
    read=reference_reader("planes.csv"),
    columns={
        "tailnum": pl.String,
        "year": pl.Int64,
        "type": pl.String,
        "manufacturer": pl.String,
        "model": pl.String,
        "engines": pl.Int64,
        "seats": pl.Int64,
        "speed": pl.Int64,
        "engine": pl.String,
        "known_at": UTC_TIME,
    },
    key=("tailnum",),
    known_at_source="assumed: the project's first instant",
    rules=(
        *gxe.ExpectColumnValuesToNotBeNull.each("tailnum", "known_at", action="stop"),
        *gxe.ExpectColumnValuesToNotBeNull.each("seats", "engines"),
        gxe.ExpectColumnValuesToBeBetween(column="year", min_value=1950, max_value=2013),
        # The certified maximum of the largest airliner, an A380, is 853.
        gxe.ExpectColumnValuesToBeBetween(column="seats", min_value=1, max_value=853),
        gxe.ExpectColumnValuesToBeBetween(column="engines", min_value=1, max_value=4),
        gxe.ExpectTableRowCountToBeBetween(min_value=3000, action="stop"),  # 3,322 were delivered
    ),
    partitioned=False,
)
