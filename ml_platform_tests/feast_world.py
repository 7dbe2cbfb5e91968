"""A small Feast repository over Delta tables and a parquet file, as any Feast user would write it."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import polars as pl
from deltalake import write_deltalake

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
UTC_TIME = pl.Datetime("us", "UTC")
LINES = {
    "line": pl.Int64,
    "city": pl.String,
    "at": UTC_TIME,
    "known_at": UTC_TIME,
    "wait": pl.Float64,
    "trips": pl.Int64,
}
CITIES = {"town": pl.String, "at": UTC_TIME, "people": pl.Int64, "names": pl.List(pl.String)}

STORE = """
project: demo
provider: local
registry: registry.db
online_store: {{type: sqlite, path: online.db}}
offline_store:
  type: ml_platform.features.feast_offline.DeltaOfflineStore
  knowledge_time: {knowledge_time}
entity_key_serialization_version: 3
"""


def line_rows(seed: int, count: int = 300) -> list[dict]:
    """Rows of a few lines and cities with ties, late corrections and gaps."""
    chance = random.Random(seed)
    rows = []
    for n in range(count):
        at = NOON + chance.randrange(24) * HOUR
        rows.append(
            {
                "line": chance.choice([1, 2, 3]),
                "city": chance.choice(["a", "b", "c"]),
                "at": at,
                "known_at": at + chance.choice([-1, 0, 0, 1, 5, 30]) * HOUR,
                "wait": chance.choice([None, n / 7]),
                "trips": n,
            }
        )
    return rows


@dataclass
class World:
    """The repository's folder, its store, and what was written into the tables."""

    folder: Path
    lines: list[dict]
    towns: list[dict]

    def open(self):
        """The store as a process of its own would open it: everything comes from the registry."""
        from feast import FeatureStore

        return FeatureStore(str(self.folder))

    def write(self, table: str, rows: list[dict], schema: dict, mode: str = "append") -> None:
        write_deltalake(str(self.folder / table), pl.DataFrame(rows, schema).to_arrow(), mode=mode)


def make_world(folder: Path, *, knowledge_time: bool = True) -> World:
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(STORE.format(knowledge_time=str(knowledge_time).lower()))
    towns = [
        {"town": town, "at": NOON + hour * HOUR, "people": 100 * hour + len(town), "names": [town, str(hour)]}
        for town in ("a", "b", "ccc")
        for hour in range(0, 24, 5)
    ]
    world = World(folder, line_rows(1), towns)
    world.write("lines", world.lines, LINES)
    world.write("towns", towns, CITIES)
    world.write(
        "weather", [{"at": NOON + h * HOUR, "rain": h / 10} for h in range(24)], {"at": UTC_TIME, "rain": pl.Float64}
    )
    pl.DataFrame(world.lines, LINES).write_parquet(folder / "lines.parquet")
    world.open().apply(declared())
    return world


def declared() -> list:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource, ValueType
    from feast.feature_logging import LoggingConfig
    from feast.infra.offline_stores.file_source import FileLoggingDestination
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Array, Float64, Int64, String

    from ml_platform.features.feast_source import DeltaLoggingDestination, DeltaSource

    line = Entity(name="line", join_keys=["line"], value_type=ValueType.INT64)
    city = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)
    times = {"timestamp_field": "at", "created_timestamp_column": "known_at"}
    schema = [Field(name="line", dtype=Int64), Field(name="city", dtype=String), Field(name="wait", dtype=Float64)]
    schema.append(Field(name="trips", dtype=Int64))
    lines = DeltaSource(name="lines", path="lines", **times)

    def view(name: str, source, ttl: timedelta = timedelta(0)):
        return FeatureView(name=name, entities=[line, city], schema=schema, source=source, ttl=ttl)

    state = view("line_state", lines, ttl=6 * HOUR)
    towns = FeatureView(
        name="town_state",
        entities=[city],
        schema=[
            Field(name="city", dtype=String),
            Field(name="inhabitants", dtype=Int64),
            Field(name="names", dtype=Array(String)),
        ],
        source=DeltaSource(
            path="towns",
            timestamp_field="at",
            field_mapping={"town": "city", "people": "inhabitants", "gone": "nowhere"},
        ),
        ttl=timedelta(0),
    )
    weather = FeatureView(
        name="weather",
        entities=[],
        schema=[Field(name="rain", dtype=Float64)],
        source=DeltaSource(path="weather", timestamp_field="at"),
        ttl=timedelta(0),
    )
    asked = RequestSource(name="asked", schema=[Field(name="riders", dtype=Int64)])

    @on_demand_feature_view(sources=[state, asked], schema=[Field(name="load", dtype=Float64)], mode="pandas")
    def line_load(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"load": inputs["riders"] / (inputs["trips"] + 1.0)})

    return [
        line,
        city,
        state,
        towns,
        weather,
        line_load,
        view("lines_forever", lines),
        view("lines_in_parquet", FileSource(name="file", path="lines.parquet", **times)),
        view("lines_pushed", PushSource(name="pushed", batch_source=DeltaSource(name="own", path="pushed", **times))),
        view("lines_once", DeltaSource(name="once", path="lines", version=0, **times)),
        FeatureService(
            name="both_ends",
            features=[
                towns.with_name("origin").with_join_key_map({"city": "starts"}),
                towns.with_name("destination").with_join_key_map({"city": "ends"}),
            ],
        ),
        *(
            FeatureService(name=name, features=[state], logging_config=LoggingConfig(destination=destination))
            for name, destination in (
                ("logged", DeltaLoggingDestination("logs")),
                ("logged_in_parquet", FileLoggingDestination(path="parquet_logs")),
            )
        ),
    ]
