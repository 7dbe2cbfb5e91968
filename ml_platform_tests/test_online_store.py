"""The online store: Feast's own bytes, newest wins, also with several writers at once."""

import multiprocessing
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.spec import Entity, FeatureView, Latest
from ml_platform.stores.feast_bytes import decode_value, encode_value, entity_key_encoder
from ml_platform.stores.online import OnlineStore

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
VIEW = FeatureView(
    name="line_state",
    source="trips",
    entities=(Entity(name="line", dtype="int64"), Entity(name="city")),
    description="Two features of a line.",
    features=(Latest("wait"), Latest("trips", "int64")),
)


def rows(*values: tuple[int, str, datetime, float | None, int | None]) -> pl.DataFrame:
    schema = {
        "line": pl.Int64,
        "city": pl.String,
        "as_of": pl.Datetime("us", "UTC"),
        "wait": pl.Float64,
        "trips": pl.Int64,
    }
    return pl.DataFrame(list(values), schema=schema, orient="row")


@given(st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False))
def test_values_come_back_to_the_bit(value: float | int | None) -> None:
    found = decode_value(encode_value(value))
    assert found == value
    assert type(found) is type(value)


def test_reads_what_was_published_and_nothing_else(tmp_path: Path) -> None:
    store = OnlineStore(tmp_path / "online.db", "demo")
    assert store.read(VIEW, [(1, "a")]) == [{"wait": None, "trips": None}]
    assert store.publish(VIEW, rows((1, "a", NOON, 0.1, 3), (2, "a", NOON, None, 0)), NOON) == 2
    found = store.read(VIEW, [(2, "a"), (1, "a"), (1, "b"), (None, "a"), (1, "a")])
    nothing = {"wait": None, "trips": None}
    assert found == [{"wait": None, "trips": 0}, {"wait": 0.1, "trips": 3}, nothing, nothing, {"wait": 0.1, "trips": 3}]


def test_an_older_value_never_replaces_a_newer_one(tmp_path: Path) -> None:
    store = OnlineStore(tmp_path / "online.db", "demo")
    store.publish(VIEW, rows((1, "a", NOON, 2.0, 2), (1, "a", NOON + HOUR, 3.0, 3)), NOON)
    store.publish(VIEW, rows((1, "a", NOON - HOUR, 1.0, 1)), NOON + 2 * HOUR)
    assert store.read(VIEW, [(1, "a")]) == [{"wait": 3.0, "trips": 3}]


def test_entities_that_come_and_go_are_not_kept(tmp_path: Path) -> None:
    from dataclasses import replace

    store = OnlineStore(tmp_path / "online.db", "demo")
    view = replace(VIEW, online_for=timedelta(hours=2))
    store.publish(view, rows((1, "a", NOON, 1.0, 1), (2, "a", NOON - 3 * HOUR, 1.0, 1)), NOON)
    assert [found["trips"] for found in store.read(view, [(1, "a"), (2, "a")])] == [1, None]
    store.publish(view, rows((3, "a", NOON + 3 * HOUR, 1.0, 1)), NOON + 3 * HOUR)
    assert [found["trips"] for found in store.read(view, [(1, "a"), (3, "a")])] == [None, 1]


def publish_many(path: Path, seed: int) -> None:
    store = OnlineStore(path, "demo")
    for step in range(60):
        hour = (step * 37 + seed * 11) % 60  # every writer has its own order of the same moments
        store.publish(VIEW, rows((1, "a", NOON + hour * HOUR, hour / 7, hour)), NOON)


def test_several_writers_leave_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=publish_many, args=(path, seed)) for seed in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert OnlineStore(path, "demo").read(VIEW, [(1, "a")]) == [{"wait": 59 / 7, "trips": 59}]


def test_keys_are_feasts_bytes() -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    for line, city in [(0, ""), (1, "a"), (-7, "Zürich"), (2**62, "new york")]:
        proto = EntityKey(join_keys=["line", "city"], entity_values=[Value(int64_val=line), Value(string_val=city)])
        expected = serialize_entity_key(proto, entity_key_serialization_version=3)
        assert entity_key_encoder(("line", "city"))((line, city)) == expected
    for number in (0, 1, -1, 2**62, -(2**63)):
        assert encode_value(number) == Value(int64_val=number).SerializeToString()
    for real in (0.0, -1.5, 1e300):
        assert encode_value(real) == Value(double_val=real).SerializeToString()
    with pytest.raises(ValueError, match="neither an int64 nor a double"):
        decode_value(Value(string_val="x").SerializeToString())


READER = """
import sys
import pandas as pd
from feast import FeatureStore
store = FeatureStore(sys.argv[1])
answer = store.get_online_features(
    features=["origin_departures:dep_delay_mean_3h", "flight_number_arrivals:late_share_28d"],
    entity_rows=[{"origin": "JFK", "carrier": "B6", "flight": 15}, {"origin": "XXX", "carrier": "B6", "flight": 1}],
).to_dict()
print(answer["dep_delay_mean_3h"], answer["late_share_28d"])
hours = pd.to_datetime(["2024-05-01T11:59Z", "2024-05-01T12:00Z", "2024-05-03T00:00Z"])
asked = pd.DataFrame({"origin": "JFK", "event_timestamp": hours})
found = store.get_historical_features(asked, ["origin_departures:dep_delay_mean_3h"]).to_arrow()
print(found["dep_delay_mean_3h"].to_pylist())
"""


def test_feast_applies_the_repository_and_reads_what_we_publish_and_what_we_store(tmp_path: Path) -> None:
    from ml_platform.features.refresh import dated
    from ml_platform.features.registry import apply, repository
    from ml_platform.resources.profiles import Profile
    from ml_platform.resources.projects import load_project
    from ml_platform.stores.delta import Lake

    profile = Profile.at(tmp_path)
    project = load_project(profile.project)
    said = apply(project, profile)
    assert all(view in said for view in project.views)
    store = OnlineStore(profile.online_path, project.name)
    for view, entity in (
        ("origin_departures", {"origin": "JFK"}),
        ("flight_number_arrivals", {"carrier": "B6", "flight": 15}),
    ):
        values = {name: (3 if kind == "int64" else 0.1) for name, kind in project.views[view].schema().items()}
        frame = pl.DataFrame([{**entity, "as_of": NOON, **values}]).cast({"as_of": pl.Datetime("us", "UTC")})
        store.publish(project.views[view], frame, NOON)
        Lake(profile.lake).replace(f"features/{view}", dated(frame, project.timezone), [NOON.date()])
    done = subprocess.run(
        [sys.executable, "-c", READER, str(repository(project))],
        env={**os.environ, "ML_PLATFORM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-2:] == ["[0.1, None] [0.1, None]", "[None, 0.1, 0.1]"]
