"""Where the airports lie and which time they keep."""

import polars as pl

from ml_platform.projects.flights.nycflights13 import UTC_TIME, reference_reader
from ml_platform.spec import SourceTable, between, not_null

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
        *not_null("faa", "known_at", action="stop"),
        *not_null("lat", "lon"),
        between("lat", -90, 90),
        between("lon", -180, 180),
        between("tz", -12, 14),
    ),
    partitioned=False,
)
