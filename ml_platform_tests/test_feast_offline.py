"""The offline store through Feast's own interface, on real Delta tables."""

import random
import subprocess
import sys
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from ml_platform.spec import DeclarationError, MissingHistory, StateError
from ml_platform_tests.feast_world import HOUR, LINES, NOON, World, line_rows, make_world

STATE = ["line_state:wait", "line_state:trips"]
FOREVER = ["lines_forever:wait", "lines_forever:trips"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("feast") / "a repository")


@pytest.fixture(scope="module")
def store(world):
    return world.open()


def questions(count: int = 200, seed: int = 2) -> pd.DataFrame:
    chance = random.Random(seed)
    rows = [
        {
            "city": chance.choice(["a", "b", "c", "nowhere"]),
            "line": chance.choice([1, 2, 3, 4]),
            "event_timestamp": NOON + chance.randrange(-2, 60) * HOUR / 2,
            "riders": number,
        }
        for number in range(count)
    ]
    return pd.DataFrame(rows)


def known_trips(rows: list[dict], question, ttl: timedelta | None = None, only_known: bool = True) -> int | None:
    """The number of the row that answers, by looking at every one; ``trips`` numbers the rows."""
    fitting = [
        row
        for row in rows
        if (row["line"], row["city"]) == (question.line, question.city)
        and row["at"] <= question.event_timestamp
        and (not only_known or row["known_at"] <= question.event_timestamp)
    ]
    best = max(fitting, key=lambda row: (row["at"], row["known_at"], row["trips"]), default=None)
    expired = best is not None and ttl is not None and best["at"] < question.event_timestamp - ttl
    return None if best is None or expired else best["trips"]


def answers(table: pa.Table, name: str = "trips") -> list:
    return table[name].to_pylist()


def test_history_is_what_was_known(store, world):
    asked = questions()
    found = store.get_historical_features(asked, STATE).to_arrow()
    expected = [known_trips(world.lines, question, ttl=6 * HOUR) for question in asked.itertuples()]
    assert answers(found) == expected
    assert answers(found, "wait") == [None if n is None else world.lines[n]["wait"] for n in expected]
    assert answers(found, "riders") == list(range(len(asked))), "rows keep their order"
    assert found.column_names == ["city", "line", "event_timestamp", "riders", "wait", "trips"]
    assert {str(kind) for kind in found.schema.types} == {"string", "int64", "double", "timestamp[ns, tz=UTC]"}


@pytest.mark.parametrize("view", ["lines_forever", "lines_in_parquet"])
def test_values_without_a_time_to_live_last(store, world, view):
    asked = questions(seed=3)
    found = store.get_historical_features(asked, [f"{view}:trips"], full_feature_names=True).to_arrow()
    assert answers(found, f"{view}__trips") == [known_trips(world.lines, question) for question in asked.itertuples()]


def test_a_correction_is_seen_from_when_it_was_known(tmp_path):
    world = make_world(tmp_path / "repository")
    rows = [
        {"line": 9, "city": "a", "at": NOON, "known_at": NOON, "wait": 1.0, "trips": 1},
        {"line": 9, "city": "a", "at": NOON, "known_at": NOON + 3 * HOUR, "wait": 2.0, "trips": 2},
        {"line": 9, "city": "a", "at": NOON - HOUR, "known_at": NOON + 5 * HOUR, "wait": 3.0, "trips": 3},
    ]
    world.write("lines", rows, LINES)
    hours = [0, 1, 2, 3, 4, 5, 6]
    asked = pd.DataFrame({"line": 9, "city": "a", "event_timestamp": [NOON + hour * HOUR for hour in hours]})
    assert answers(world.open().get_historical_features(asked, STATE).to_arrow()) == [1, 1, 1, 2, 2, 2, 2]
    careless = (
        (world.folder / "feature_store.yaml").read_text().replace("knowledge_time: true", "knowledge_time: false")
    )
    (world.folder / "feature_store.yaml").write_text(careless)
    store = world.open()
    assert answers(store.get_historical_features(asked, STATE).to_arrow()) == [2] * 7
    insisted = store.get_historical_features(asked, STATE, filter_by_created_timestamp=True)
    assert answers(insisted.to_arrow()) == [1, 1, 1, 2, 2, 2, 2]
    every = questions()
    assert answers(store.get_historical_features(every, FOREVER).to_arrow()) == [
        known_trips(world.lines, question, only_known=False) for question in every.itertuples()
    ]


def test_mapped_names_lists_and_join_keys(store, world):
    asked = pd.DataFrame({"starts": ["a", "ccc"], "ends": ["b", None], "event_timestamp": [NOON + 5 * HOUR] * 2})
    found = store.get_historical_features(
        asked, store.get_feature_service("both_ends"), full_feature_names=True
    ).to_arrow()
    assert answers(found, "origin__inhabitants") == [501, 503]
    assert answers(found, "destination__inhabitants") == [501, None]
    assert answers(found, "origin__names") == [["a", "5"], ["ccc", "5"]]
    assert str(found.schema.field("origin__names").type).startswith("list<")


def test_on_demand_features(store, world):
    asked = questions(50)
    found = store.get_historical_features(asked, ["line_load:load", "line_state:trips"]).to_df()
    expected = asked["riders"] / (found["trips"] + 1.0)
    assert found["load"].equals(expected.rename("load"))


def test_views_without_entities(store):
    asked = pd.DataFrame({"event_timestamp": [NOON - HOUR, NOON + 1.5 * HOUR]})
    assert answers(store.get_historical_features(asked, ["weather:rain"]).to_arrow(), "rain") == [None, 0.1]


def test_all_entities_of_a_range(store, world):
    start, end = NOON + 2 * HOUR, NOON + 8 * HOUR
    first, last = start.replace(tzinfo=None), end.replace(tzinfo=None)
    job = store.get_historical_features(features=[*FOREVER, "town_state:inhabitants"], start_date=first, end_date=last)
    found = job.to_df()
    seen = {(row["line"], row["city"]) for row in world.lines if start <= row["at"] <= end and row["known_at"] <= end}
    of_lines = found.dropna(subset="line")
    assert sorted(zip(of_lines["line"], of_lines["city"], strict=True)) == sorted(seen)
    assert set(found["event_timestamp"]) == {pd.Timestamp(end)}
    assert of_lines["trips"].tolist() == [known_trips(world.lines, question) for question in of_lines.itertuples()]
    assert sorted(found[found["line"].isna()]["city"]) == ["a", "b", "ccc"]
    assert set(found[found["city"] == "a"]["inhabitants"]) == {501}


def test_moments_of_any_zone_and_kind(store, world):
    berlin = ZoneInfo("Europe/Berlin")
    moment = NOON + 20 * HOUR
    kinds = {
        "naive": [moment.replace(tzinfo=None)],
        "aware": [moment.astimezone(berlin)],
        "mixed": [moment, moment.astimezone(berlin), moment.replace(tzinfo=None), moment.isoformat(), None],
    }
    question = pd.Series({"line": 1, "city": "a", "event_timestamp": moment})
    expected = known_trips(world.lines, question)
    assert expected is not None
    for kind, moments in kinds.items():
        column = pd.Series(moments, dtype=object if kind == "mixed" else None)
        asked = pd.DataFrame({"line": 1, "city": "a", "event_timestamp": column})
        found = answers(store.get_historical_features(asked, FOREVER).to_arrow())
        assert found == [None if pd.isna(m) else expected for m in moments], kind


def test_what_cannot_be_answered_is_refused_in_words(store):
    good = questions(2)
    cases = [
        ("SELECT 1", FOREVER, DeclarationError, "not as str"),
        (good.drop(columns="city"), FOREVER, DeclarationError, "lack city; they hold line, event_timestamp, riders"),
        (good.assign(trips=1), FOREVER, DeclarationError, "full_feature_names=True"),
        (good.assign(line=["x", "y"]), FOREVER, StateError, "the key line is String"),
        (good.assign(event_timestamp=["x", "y"]), FOREVER, StateError, "holds something that is no time"),
        (good.assign(riders=pd.Series([1, "x"], dtype=object)), FOREVER, StateError, "mixes types"),
    ]
    for asked, features, kind, words in cases:
        with pytest.raises(kind, match=words):
            store.get_historical_features(asked, features).to_arrow()


def test_no_question_has_no_answer(store):
    found = store.get_historical_features(questions(3).head(0), STATE).to_arrow()
    assert found.num_rows == 0
    assert found.column_names[-2:] == ["wait", "trips"]


def test_saved_datasets(store, world):
    from feast.errors import SavedDatasetLocationAlreadyExists
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    from ml_platform.features.feast_source import SavedDatasetDeltaStorage

    def save(place, count: int, **how):
        job = store.get_historical_features(questions(count), STATE, full_feature_names=True)
        return store.create_saved_dataset(job, "kept", place, **how)

    places = [
        SavedDatasetDeltaStorage("saved"),
        SavedDatasetFileStorage("kept/saved.parquet"),
        SavedDatasetFileStorage("kept_in_folder"),
    ]
    for place in places:
        save(place, 30)
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            save(place, 20)
        save(place, 20, allow_overwrite=True)
        expected = store.get_historical_features(questions(20), STATE, full_feature_names=True).to_df()
        found = world.open().get_saved_dataset("kept").to_df()
        columns = ["line", "city", "event_timestamp", "line_state__wait", "line_state__trips"]
        found, expected = (frame[columns].sort_values(columns, ignore_index=True) for frame in (found, expected))
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)  # Delta keeps no nanoseconds


def online(store, *keys: tuple[int, str]) -> list:
    rows = [{"line": line, "city": city} for line, city in keys]
    return store.get_online_features(STATE, rows).to_dict()["trips"]


def test_materialize(world):
    store = world.open()
    end = NOON + 12 * HOUR
    store.materialize(NOON, end, feature_views=["line_state", "town_state", "weather"])

    def newest(line: int, city: str, last: datetime) -> int:
        rows = [r for r in world.lines if (r["line"], r["city"]) == (line, city) and r["at"] <= last]
        return max(rows, key=lambda r: (r["at"], r["known_at"], r["trips"]))["trips"]

    pairs = [(line, city) for line in (1, 2, 3) for city in ("a", "b", "c")]
    assert online(store, *pairs) == [newest(*pair, end) for pair in pairs]
    assert store.get_online_features(["town_state:inhabitants", "town_state:names"], [{"city": "ccc"}]).to_dict() == {
        "city": ["ccc"],
        "inhabitants": [1003],
        "names": [["ccc", "10"]],
    }
    assert store.get_online_features(["weather:rain"], [{"__dummy_id": ""}]).to_dict()["rain"] == [1.2]
    store.materialize_incremental(NOON + 23 * HOUR, feature_views=["line_state"])
    assert online(store, *pairs) == [newest(*pair, NOON + 23 * HOUR) for pair in pairs]


def test_pushed_and_written_rows_are_history(tmp_path):
    from feast.data_source import PushMode

    world = make_world(tmp_path / "repository")
    store = world.open()
    rows = pd.DataFrame(line_rows(5, 20))
    with pytest.raises(MissingHistory, match="there is no Delta table"):
        store.push("pushed", rows, to=PushMode.OFFLINE)
    world.write("pushed", line_rows(5, 0), LINES)
    store.push("pushed", rows.head(12), to=PushMode.OFFLINE)
    store.write_to_offline_store("lines_pushed", rows.tail(8)[["trips", *list(LINES)[:-1]]])
    assert DeltaTable(str(world.folder / "pushed")).version() == 2
    asked = questions()
    found = answers(store.get_historical_features(asked, ["lines_pushed:trips"]).to_arrow())
    assert found == [known_trips(line_rows(5, 20), question) for question in asked.itertuples()]
    with pytest.raises(StateError, match="the column trips for the source own is double and does not fit int64"):
        store.write_to_offline_store("lines_pushed", rows.assign(trips=0.5))
    town = pd.DataFrame({"town": ["a"], "at": [NOON + 30 * HOUR], "people": [7], "names": [["x"]]})
    store.write_to_offline_store("town_state", town)
    later = pd.DataFrame({"city": ["a"], "event_timestamp": [NOON + 31 * HOUR]})
    assert answers(store.get_historical_features(later, ["town_state:inhabitants"]).to_arrow(), "inhabitants") == [7]
    store.write_to_offline_store("lines_in_parquet", rows.assign(trips=rows["trips"] + 1000))
    found = answers(store.get_historical_features(asked, ["lines_in_parquet:trips"]).to_arrow())
    both = world.lines + [{**row, "trips": row["trips"] + 1000} for row in line_rows(5, 20)]
    assert found == [known_trips(both, question) for question in asked.itertuples()]


@pytest.mark.parametrize("name", ["logged", "logged_in_parquet"])
def test_logged_features_are_read_back(store, world, name):
    fresh = world.open()
    service = fresh.get_feature_service(name)
    logs = pa.table(
        {
            "line": pa.array([1, 2]),
            "city": ["a", "b"],
            **{f"line_state__{f}": pa.array([0.5, None], t) for f, t in (("wait", pa.float64()),)},
            "line_state__trips": pa.array([3, None], pa.int64()),
            **{
                f"line_state__{f}__timestamp": pa.array([NOON, None], pa.timestamp("us", "UTC"))
                for f in ("wait", "trips")
            },
            **{f"line_state__{f}__status": pa.array([2, 1], pa.int32()) for f in ("wait", "trips")},
            "__log_timestamp": pa.array([NOON, NOON + HOUR], pa.timestamp("us", "UTC")),
            "__log_date": pa.array([NOON.date()] * 2),
            "__request_id": ["x", "y"],
        }
    )
    for _ in range(2):
        fresh.write_logged_features(logs, service)
    provider = fresh._get_provider()
    found = provider.retrieve_feature_service_logs(service, NOON, NOON + HOUR / 2, fresh.config, fresh.registry).to_df()
    assert found["line_state__trips"].tolist() == [3, 3]
    assert found["__request_id"].tolist() == ["x", "x"]


def test_a_pinned_version_stays_what_it_was(tmp_path):
    world = make_world(tmp_path / "repository")
    world.write("lines", line_rows(7), LINES, mode="overwrite")
    store, asked = world.open(), questions()
    pinned, newest = (
        answers(store.get_historical_features(asked, [f"{view}:trips"]).to_arrow())
        for view in ("lines_once", "lines_forever")
    )
    assert pinned == [known_trips(world.lines, question) for question in asked.itertuples()]
    assert newest == [known_trips(line_rows(7), question) for question in asked.itertuples()]
    with pytest.raises(StateError, match="rows cannot be added to version 0"):
        store.write_to_offline_store("lines_once", pd.DataFrame(world.lines))
    table = DeltaTable(str(world.folder / "lines"))
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(MissingHistory, match=r"files of version 0 of the Delta table at .* are gone: VACUUM"):
        store.get_historical_features(asked, ["lines_once:trips"]).to_arrow()


def test_a_source_comes_back_from_the_registry_as_it_was(store, world):
    from ml_platform.features.feast_source import DeltaSource

    source = DeltaSource(
        path="s3://lake/x", version=3, storage_options={"AWS_REGION": "eu"}, timestamp_field="at",
        created_timestamp_column="known_at", field_mapping={"a": "b"}, description="d", tags={"k": "v"}, owner="o",
    )  # fmt: skip
    assert DeltaSource.from_proto(source.to_proto()) == source
    assert DeltaSource(path="s3://lake/x", timestamp_field="at") != DeltaSource(
        path="s3://lake/x", timestamp_field="at", version=3
    )
    with pytest.raises(DeclarationError, match="a version from 0 on"):
        DeltaSource(path="x", timestamp_field="at", version=-1)
    with pytest.raises(MissingHistory, match=r"version 9 of the Delta table at .* cannot be opened; the newest is 0"):
        DeltaSource(path="weather", timestamp_field="at", version=9).address(store.config).open()
    with pytest.raises(DeclarationError, match="names the time column then, but the table weather holds at, rain"):
        DeltaSource(path="weather", timestamp_field="then").validate(store.config)
    DeltaSource(path="not written yet", timestamp_field="then").validate(store.config)


def test_the_store_alone_loads_nothing_else_of_the_platform():
    heavy = ("dagster", "mlflow", "evidently", "bentoml", "lightgbm", "ray", "sklearn")  # Feast itself loads torch
    child = f"import sys, ml_platform.features.feast_offline; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", child], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "[]"
