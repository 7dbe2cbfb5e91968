"""What the tests of the online stores share: views of lines and cities, a Redis of their own, Feast beside us."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis

from ml_platform.spec import Entity, FeatureView, Latest
from ml_platform.stores.online import Online
from ml_platform_tests.online_writer import LINES, NOON, VIEW, rows
from ml_platform_tests.services import ADDRESSES

HOUR = timedelta(hours=1)
PASSING = replace(VIEW, name="line_today", online_for=timedelta(hours=2))
CITY = FeatureView(
    name="city_state",
    source="trips",
    entities=(Entity(name="city"),),
    description="Three features of a city.",
    features=(Latest("rain"), Latest("snow"), Latest("events", "int64")),
    online_for=timedelta(days=1),
)
DATABASE = 11  # of the Redis of the tests; every test has a project of its own in it


def city_rows(*values: tuple[str, datetime, float | None, float | None, int | None]) -> pl.DataFrame:
    """Rows of CITY: city, as_of, rain, snow, events."""
    schema = {
        "city": pl.String,
        "as_of": pl.Datetime("us", "UTC"),
        "rain": pl.Float64,
        "snow": pl.Float64,
        "events": pl.Int64,
    }
    return pl.DataFrame(list(values), schema=schema, orient="row")


REDIS = pytest.param("redis", marks=pytest.mark.service("redis"))
BOTH = ["sqlite", REDIS]


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[tuple[str | Path, str]]:
    """Address and project of an empty store; what is left in Redis is removed at the end."""
    if kind == "sqlite":
        yield folder / "online.db", "demo"
        return
    host, port = ADDRESSES["redis"]
    project = f"test_{uuid.uuid4().hex}"
    yield f"redis://{host}:{port}/{DATABASE}", project
    with redis.Redis(host, port, db=DATABASE) as client:
        left = list(client.scan_iter(f"*{project}", count=10_000))
        if left:
            client.delete(*left)


def whole_steps(store: Online) -> list[int]:
    """The step that stands at each line, -1 for none; every feature must be of the same one."""
    plan = store.plan([(VIEW, ("wait", "trips"))])
    found = plan.read([{"line": line, "city": "a"} for line in range(LINES)], NOON)
    for wait, trips in found.values:
        assert (wait is None) == (trips is None)
        assert wait is None or wait == trips / 7, "half of one row and half of another"
    return [-1 if trips is None else int(trips) for _, trips in found.values]


def feast_store(folder: Path, address: str | Path, project: str) -> Any:
    """Feast on the same online store, with the same views; their tables are parquet files in ``folder``."""
    from feast import Entity as FeastEntity
    from feast import FeatureStore, Field, FileSource, RepoConfig, ValueType
    from feast import FeatureView as FeastView
    from feast.types import Float64, Int64, String

    if isinstance(address, Path):
        online = {"type": "sqlite", "path": str(address)}
    else:
        place, _, database = address.removeprefix("redis://").partition("/")
        online = {"type": "redis", "connection_string": f"{place},db={database}"}
    config = RepoConfig(
        project=project,
        provider="local",
        registry=str(folder / "registry.db"),
        online_store=online,
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
    )
    types = {"int64": Int64, "float64": Float64, "string": String}
    entities = {
        entity.name: FeastEntity(
            name=entity.name,
            join_keys=[entity.name],
            value_type=ValueType.INT64 if entity.dtype == "int64" else ValueType.STRING,
        )
        for entity in VIEW.entities
    }
    views = [
        FeastView(
            name=view.name,
            entities=[entities[name] for name in view.entity_names],
            schema=[
                *(Field(name=entity.name, dtype=types[entity.dtype]) for entity in view.entities),
                *(Field(name=name, dtype=types[kind]) for name, kind in view.schema().items()),
            ],
            source=FileSource(path=str(folder / f"{view.name}.parquet"), timestamp_field="as_of"),
            ttl=view.online_for or timedelta(0),
        )
        for view in (VIEW, CITY)
    ]
    for view, frame in ((VIEW, rows()), (CITY, city_rows())):
        frame.write_parquet(folder / f"{view.name}.parquet")  # Feast looks at it
    store = FeatureStore(config=config)
    store.apply([*entities.values(), *views])
    return store
