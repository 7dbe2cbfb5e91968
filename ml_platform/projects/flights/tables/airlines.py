"""The sixteen carriers."""

import polars as pl

from ml_platform.projects.flights.nycflights13 import UTC_TIME, reference_reader
from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe

airlines = SourceTable(
    description="Carrier codes and names; the codes of every flight must be among them.",
    read=reference_reader("airlines.csv"),
    columns={"carrier": pl.String, "name": pl.String, "known_at": UTC_TIME},
    key=("carrier",),
    known_at_source="assumed: the project's first instant",
    rules=(
        *gxe.ExpectColumnValuesToNotBeNull.each("carrier", "name", "known_at", action="stop"),
        gxe.ExpectTableRowCountToBeBetween(min_value=15, action="stop"),  # 16 were delivered
    ),
    partitioned=False,
    max_quarantined=0.0,
)
