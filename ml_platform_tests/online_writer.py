"""A process that publishes: for the tests with several of them, so it imports little and starts quickly."""

import random
from datetime import UTC, datetime, timedelta
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path

import polars as pl

from ml_platform.spec import Entity, FeatureView, Latest
from ml_platform.stores.online import online_store

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
VIEW = FeatureView(
    name="line_state",
    source="trips",
    entities=(Entity(name="line", dtype="int64"), Entity(name="city")),
    description="Two features of a line.",
    features=(Latest("trips", "int64"), Latest("wait")),
)
LINES = 8
MOMENTS = 150
_BETWEEN = timedelta(milliseconds=300)  # moments of the same second are told apart, too


def rows(*values: tuple[int, str, datetime, float | None, int | None]) -> pl.DataFrame:
    """Rows of VIEW: line, city, as_of, wait, trips."""
    schema = {
        "line": pl.Int64,
        "city": pl.String,
        "as_of": pl.Datetime("us", "UTC"),
        "wait": pl.Float64,
        "trips": pl.Int64,
    }
    return pl.DataFrame(list(values), schema=schema, orient="row")


def write_all(address: str | Path, project: str, seed: int, begun: Connection, until_killed: bool) -> None:
    """Publish every moment of every line, in an order of its own, some twice; each row's features tell its moment.

    until_killed: again and again.
    """
    store = online_store(address, project)
    order = [(line, step) for line in range(LINES) for step in range(MOMENTS)]
    random.Random(seed).shuffle(order)
    order += order[:100]
    starts = range(0, len(order), LINES)
    for number, start in enumerate(cycle(starts) if until_killed else starts):
        some = order[start : start + LINES]
        new = rows(*((line, "a", NOON + step * _BETWEEN, step / 7, step) for line, step in some))
        store.publish(VIEW, new, NOON)
        if number == 0:
            begun.send(True)
