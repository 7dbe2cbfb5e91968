"""The register of aircraft."""

import polars as pl

from ml_platform.projects.flights.nycflights13 import UTC_TIME, reference_reader
from ml_platform.spec import SourceTable, between, not_null

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
        *not_null("tailnum", "known_at", action="stop"),
        *not_null("seats", "engines"),
        between("year", 1950, 2013),
        between("seats", 1, 853),  # the certified maximum of the largest airliner, an A380
        between("engines", 1, 4),
    ),
    partitioned=False,
)
