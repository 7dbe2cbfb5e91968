"""What the benchmark of the online store compares: our plan and Feast's client, on the same Redis and views."""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.spec import Entity, FeatureView, Latest
from ml_platform.stores.redis_wire import RedisWire, packed

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

Rows = list[dict[str, int]]
Answer = dict[str, tuple[Any, ...]]


def view(name: str, entity: Entity) -> FeatureView:
    """Fifteen features: twelve floats and three counts."""
    features = [Latest(f"{name}_{n}", "float64" if n < 12 else "int64") for n in range(15)]
    return FeatureView(
        name=name,
        source="events",
        entities=(entity,),
        features=tuple(features),
        description="Fifteen features.",
        online_for=timedelta(days=1),
        fresh_within=timedelta(days=1),
    )


def table(of: FeatureView, count: int, seed: int) -> pl.DataFrame:
    """A row an entity, of the last hours; every fiftieth value is null."""
    chance = random.Random(seed)
    columns: dict[str, list[Any]] = {of.entity_names[0]: list(range(count))}
    for name, kind in of.schema().items():
        draw = chance.random if kind == "float64" else lambda: chance.randrange(2000)
        columns[name] = [None if chance.random() < 0.02 else draw() for _ in range(count)]
    moments = [NOW - timedelta(seconds=chance.randrange(7200)) for _ in range(count)]
    return pl.DataFrame(columns).with_columns(pl.Series("as_of", moments, dtype=pl.Datetime("us", "UTC")))


class Feast:
    """Feast on the same Redis with the same views; its tables are parquet files in ``folder``."""

    def __init__(
        self, folder: Path, url: str, project: str, views: Sequence[FeatureView], *, vectors: bool, **online: Any
    ) -> None:
        """``vectors``: declare a service that is read from vectors made beforehand; ``online``: its Redis settings."""
        from feast import Entity as FeastEntity
        from feast import FeatureService, FeatureStore, Field, FileSource, RepoConfig, ValueType
        from feast import FeatureView as FeastView
        from feast.types import Float64, Int64

        place, _, database = url.removeprefix("redis://").partition("/")
        settings = {"type": "redis", "connection_string": f"{place},db={database or 0}", **online}

        config = RepoConfig(
            project=project,
            provider="local",
            registry={"path": str(folder / f"{project}.db"), "cache_ttl_seconds": 0},  # the cache never runs out
            online_store=settings,
            offline_store={"type": "dask"},
            entity_key_serialization_version=3,
        )
        types = {"float64": Float64, "int64": Int64}
        entities = {
            name: FeastEntity(name=name, join_keys=[name], value_type=ValueType.INT64)
            for name in dict.fromkeys(each.entity_names[0] for each in views)
        }
        made = [
            FeastView(
                name=each.name,
                entities=[entities[each.entity_names[0]]],
                schema=[
                    Field(name=each.entity_names[0], dtype=Int64),
                    *(Field(name=name, dtype=types[kind]) for name, kind in each.schema().items()),
                ],
                source=FileSource(path=str(folder / f"{each.name}.parquet"), timestamp_field="as_of"),
                ttl=timedelta(0),  # it would not keep to another, and looks less without
            )
            for each in views
        ]
        # One for all its arms: Feast caches the registry's objects of one only, and two by turns cost 2.5 ms a call.
        self.store = FeatureStore(config=config)
        services = [FeatureService(name="both", features=made)]
        if vectors:  # they would be made with every materialization, too
            services.append(FeatureService(name="both_precomputed", features=made, precompute_online=True))
        self.store.apply([*entities.values(), *made, *services])
        self.service = self.store.get_feature_service("both")
        self.precomputed = self.store.get_feature_service("both_precomputed") if vectors else None
        self.names = [f"{each.name}:{name}" for each in views for name in each.schema()]

    def as_it_comes(self, rows: Rows) -> Answer:
        """As the documentation shows it."""
        found: Answer = self.store.get_online_features(features=self.names, entity_rows=rows).to_dict()
        return found

    def at_its_best(self, rows: Rows) -> Answer:
        """The service's object instead of thirty names, columns instead of rows; redis-py has hiredis anyway."""
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        found: Answer = self.store.get_online_features(features=self.service, entity_rows=columns).to_dict()
        return found

    def from_vectors(self, rows: Rows) -> Answer:
        """From vectors that Feast made beforehand (views of one entity only; no entity may be unknown)."""
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        response = self.store.get_online_features(self.precomputed, columns, full_feature_names=True)
        return {name.rpartition("__")[2]: values for name, values in response.to_dict().items()}

    def statuses(self, rows: Rows) -> dict[str, list[int]]:
        """Its statuses, by feature."""
        proto = self.store.get_online_features(features=self.names, entity_rows=rows).proto
        columns = zip(proto.metadata.feature_names.val, proto.results, strict=True)
        return {name: list(result.statuses) for name, result in columns}


@contextmanager
def silence() -> Iterator[None]:
    """Feast draws a progress bar on standard error and speaks on standard output."""
    kept = os.dup(1), os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)


def keys_of(wire: RedisWire, project: str) -> list[bytes]:
    """Every key of a project."""
    keys: list[bytes] = []
    cursor = b"0"
    while True:
        cursor, some = wire.ask(packed("SCAN", cursor, "MATCH", f"*{project}", "COUNT", 5000), 1)[0]
        keys += some
        if cursor == b"0":
            return keys


def contents(wire: RedisWire, project: str) -> dict[bytes, dict[bytes, bytes]]:
    """The hashes of a project in the layout that is Feast's, so without our stamps and the index of ages."""
    keys = [key for key in keys_of(wire, project) if not key.startswith(b"_ages:")]
    hashes = wire.ask(b"".join(packed("HGETALL", key) for key in keys), len(keys))
    return {
        key.removesuffix(project.encode()): {
            field: value
            for field, value in zip(found[::2], found[1::2], strict=True)
            if not field.startswith(b"_stamp:")
        }
        for key, found in zip(keys, hashes, strict=True)
    }


def forget(wire: RedisWire, project: str) -> None:
    """Remove a project's keys."""
    keys = keys_of(wire, project)
    for start in range(0, len(keys), 1000):
        wire.ask(packed("DEL", *keys[start : start + 1000]), 1)
