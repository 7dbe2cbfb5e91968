"""Where the airports lie and which time they keep."""

import polars as pl

from ml_platform.projects.flights.nycflights13 import UTC_TIME, reference_reader
from ml_platform.spec import SourceTable
from ml_platform.spec import expectations as gxe

airports = SourceTable(
    description="Place and time zone of an airport (lat, lon in degrees, alt in feet); BQN, SJU, STT, PSE are missing.",
    read=reference_reader("airports.csv"),
    columns={
        "faa": pl.String,
        "name": pl.String,
        "lat": pl.Float64,
        "lon": pl.Float64,
        "alt": pl.Int64,
        "tz": pl.Int64,
        "dst": pl.String,
        "tzone": pl.String,
        "known_at": UTC_TIME,
    },
    key=("faa",),
    known_at_source="assumed: the project's first instant",
    rules=(
        *gxe.ExpectColumnValuesToNotBeNull.each("faa", "known_at", action="stop"),
        *gxe.ExpectColumnValuesToNotBeNull.each("lat", "lon"),
        gxe.ExpectColumnValuesToBeBetween(column="lat", min_value=-90, max_value=90),
        gxe.ExpectColumnValuesToBeBetween(column="lon", min_value=-180, max_value=180),
        gxe.ExpectColumnValuesToBeBetween(column="tz", min_value=-12, max_value=14),
        gxe.ExpectTableRowCountToBeBetween(min_value=1300, action="stop"),  # 1,458 were delivered
    ),
    partitioned=False,
)
