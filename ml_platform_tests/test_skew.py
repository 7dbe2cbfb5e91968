"""Training-serving skew: what is served equals the slow recomputation, bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.features.refresh import recall_needed
from ml_platform.features.skew import COLUMNS, compare, newest_skew, note_skew, sampled, verdict
from ml_platform.features.windows import AS_OF, feature_rows, values_at
from ml_platform.spec import KNOWN_AT, Active, Entity, FeatureView, Latest, Window
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.online import OnlineStore

START = datetime(2024, 3, 9, tzinfo=UTC)  # New York's clocks change the next day
HOUR = timedelta(hours=1)
UTC_TIME = pl.Datetime("us", "UTC")
SPANS = (HOUR, 5 * HOUR)
LINE, STOP = Entity(name="line"), Entity(name="stop", dtype="int64")
LINES = FeatureView(
    name="lines",
    source="trips",
    entities=(LINE, STOP),
    time="at",
    description="Windows and open trips of a line at a stop.",
    derive={"late": pl.col("minutes") > 5},
    features=(
        Window("minutes", "count", over=SPANS),
        Window("minutes", "sum", over=SPANS),
        Window("minutes", "mean", over=SPANS),
        Window("minutes", "last", over=SPANS),
        Window("late", "share", over=SPANS),
        Active(opened_at="at", closed_by=("ends",), key=("trip",), expires_after=3 * HOUR, name="open"),
    ),
)
NEWEST = FeatureView(
    name="newest", source="trips", entities=(LINE,), description="The newest trip.", features=(Latest("minutes"),)
)
VIEWS = {"lines": LINES, "newest": NEWEST}
NAMES = [f"{view.name}__{feature}" for view in VIEWS.values() for feature in view.schema()]

moments = st.integers(0, 4 * 24).map(lambda quarter: START + quarter * timedelta(minutes=15))
trips = st.lists(
    st.fixed_dictionaries(
        {
            "line": st.sampled_from(["a", "b", None]),
            "stop": st.integers(1, 2),
            "at": moments,
            "wait": st.integers(-4, 12),  # quarters of an hour until it is known; below zero: known before it happens
            "minutes": st.none() | st.floats(-100, 100, allow_nan=False, width=32),
        }
    ),
    max_size=25,
)
closings = st.lists(st.tuples(st.integers(0, 25), moments), max_size=15)
questions = st.lists(
    st.tuples(st.sampled_from(["a", "b", "never seen", None]), st.integers(1, 2), st.integers(0, 30)),
    min_size=1,
    max_size=12,
)


def frames_of(rows: list[dict[str, Any]], ends: list[tuple[int, datetime]]) -> dict[str, pl.DataFrame]:
    schema = {
        "trip": pl.Int64,
        "line": pl.String,
        "stop": pl.Int64,
        "at": UTC_TIME,
        KNOWN_AT: UTC_TIME,
        "minutes": pl.Float64,
    }
    listed = [
        {**row, "trip": n, KNOWN_AT: row["at"] + row["wait"] * timedelta(minutes=15)} for n, row in enumerate(rows)
    ]
    return {
        "trips": pl.DataFrame(listed, schema),
        "ends": pl.DataFrame(ends, {"trip": pl.Int64, KNOWN_AT: UTC_TIME}, orient="row"),
    }


def answers(rows: list[tuple[dict[str, Any], datetime, Mapping[str, Any]]]) -> pl.DataFrame:
    """The prediction log's rows for (entities, as_of, served values by full name)."""
    listed = [
        {
            "prediction_id": f"p{n}",
            "entities": json.dumps(entities, sort_keys=True),
            "asked_at": as_of,
            "as_of": as_of,
            "feature_names": list(values),
            "features": [None if value is None else float(value) for value in values.values()],
        }
        for n, (entities, as_of, values) in enumerate(rows)
    ]
    types = {
        "prediction_id": pl.String,
        "entities": pl.String,
        "asked_at": UTC_TIME,
        "as_of": UTC_TIME,
        "feature_names": pl.List(pl.String),
        "features": pl.List(pl.Float64),
    }
    return pl.DataFrame(listed, schema=types)


def served(store: OnlineStore, views: Mapping[str, FeatureView], entities: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for view in views.values():
        (values,) = store.read(view, [tuple(entities[name] for name in view.entity_names)])
        found |= {f"{view.name}__{name}": value for name, value in values.items()}
    return found


def bounded(frames: Mapping[str, pl.DataFrame], view: FeatureView, first: datetime) -> dict[str, pl.DataFrame]:
    """What is read from the lake: the rows known since as long ago as the view reaches."""
    recall = recall_needed(view, HOUR)
    assert recall is not None
    return {name: frame.filter(pl.col(KNOWN_AT) >= first - recall) for name, frame in frames.items()}


@settings(max_examples=20, deadline=None)
@given(trips, closings, questions)
def test_what_the_online_store_serves_equals_the_recomputation(
    tmp_path_factory: pytest.TempPathFactory, rows: list, ends: list, asked: list
) -> None:
    frames = frames_of(rows, ends)
    store = OnlineStore(tmp_path_factory.mktemp("online") / "online.db", "demo")
    given_answers = []
    for n in range(max(hour for _, _, hour in asked) + 2):
        step = START + (n - 1) * HOUR  # what was known before the first hour, too
        known = {name: frame.filter(pl.col(KNOWN_AT) <= step) for name, frame in frames.items()}
        for view in VIEWS.values():
            changed = feature_rows(view, known, step, step + HOUR, HOUR)
            if changed.height:
                store.publish(view, changed, step)
        for line, stop, hour in asked:
            if hour == n - 1:
                entities = {"line": line, "stop": stop}
                given_answers.append((entities, step, served(store, VIEWS, entities)))
    log = answers(given_answers)
    compared, differing = compare(log, VIEWS, frames)
    assert compared == len(asked) * len(NAMES)
    assert differing.is_empty(), differing
    only_windows = {"lines": LINES}
    shorter = answers([(e, a, {k: v for k, v in f.items() if k.startswith("lines")}) for e, a, f in given_answers])
    assert compare(shorter, only_windows, bounded(frames, LINES, log["as_of"].min()))[1].is_empty()


FRAMES = frames_of(
    [
        {"line": "a", "stop": 1, "at": START + hours * HOUR, "wait": 0, "minutes": minutes}
        for hours, minutes in [(0.5, 4.0), (1.5, 8.0), (2.5, None), (2.75, 16.25)]
    ],
    [(3, START + 3 * HOUR)],
)
NOW = START + 3 * HOUR


def right(entities: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    points = pl.DataFrame({**{k: [v] for k, v in entities.items()}, AS_OF: [at]}).cast({AS_OF: UTC_TIME})
    found = {}
    for view in VIEWS.values():
        values = (
            values_at(view, FRAMES, points.select(*view.entity_names, AS_OF)).select(*view.schema()).row(0, named=True)
        )
        found |= {f"{view.name}__{name}": value for name, value in values.items()}
    return found


def differing(values: Mapping[str, Any], entities: Mapping[str, Any] | None = None) -> pl.DataFrame:
    return compare(answers([(dict(entities or {"line": "a", "stop": 1}), NOW, values)]), VIEWS, FRAMES)[1]


def test_right_values_pass() -> None:
    found = right({"line": "a", "stop": 1}, NOW)
    assert found["lines__minutes_mean_5h"] == pytest.approx(28.25 / 3)
    assert found["lines__open_3h"] == 3
    compared, none = compare(answers([({"line": "a", "stop": 1}, NOW, found)]), VIEWS, FRAMES)
    told = verdict(compared, none)
    assert (told.state, compared) == ("pass", len(NAMES))


def test_an_idle_entity_counts_zero_and_misses_the_rest() -> None:
    idle = {"line": "a", "stop": 2}
    found = right(idle, NOW) | {"newest__minutes": right({"line": "a", "stop": 1}, NOW)["newest__minutes"]}
    assert (found["lines__minutes_count_5h"], found["lines__minutes_sum_5h"], found["lines__open_3h"]) == (0, 0.0, 0)
    assert found["lines__minutes_mean_5h"] is None
    assert differing(found, idle).is_empty()
    assert differing(found | {"lines__minutes_count_5h": None}, idle)["feature"].to_list() == [
        "lines__minutes_count_5h"
    ]


def test_a_default_instead_of_a_missing_value_is_named() -> None:
    idle = {"line": "a", "stop": 2}
    rows = differing(right(idle, NOW) | {"lines__minutes_mean_1h": 0.0}, idle)
    assert rows.rows() == [("p0", "lines__minutes_mean_1h", 0.0, None)]
    told = verdict(len(NAMES), rows)
    assert told.state == "fail"
    assert "for example p0 was served lines__minutes_mean_1h = 0.0, recomputed None" in told.reason
    assert told.measures == {"values_compared": len(NAMES), "values_differing": 1}


def test_a_value_of_another_hour_is_named() -> None:
    before = right({"line": "a", "stop": 1}, NOW - HOUR)
    now = right({"line": "a", "stop": 1}, NOW)
    assert set(differing(before)["feature"]) == {name for name in NAMES if before[name] != now[name]} != set()


def test_a_missing_value_is_named() -> None:
    rows = differing(right({"line": "a", "stop": 1}, NOW) | {"newest__minutes": None})
    assert rows.rows() == [("p0", "newest__minutes", None, 16.25)]


def test_the_last_bit_counts() -> None:
    found = right({"line": "a", "stop": 1}, NOW)
    rows = differing(found | {"lines__minutes_mean_5h": found["lines__minutes_mean_5h"] * (1 + 2**-52)})
    assert rows["feature"].to_list() == ["lines__minutes_mean_5h"]
    assert differing(found | {"newest__minutes": float("nan")}).height == 1


@pytest.mark.parametrize("name", ["lines__gone_1h", "gone__minutes", "bare"])
@pytest.mark.parametrize("value", [None, 1.0])
def test_a_served_feature_that_nobody_declares_does_not_pass(name: str, value: float | None) -> None:
    assert differing(right({"line": "a", "stop": 1}, NOW) | {name: value}).rows() == [("p0", name, value, None)]


def test_a_sample_is_the_same_each_time_and_grows_with_its_share() -> None:
    rows = answers([({"line": "a", "stop": 1}, NOW, {})] * 400)
    few, more, every = (set(sampled(rows, share)["prediction_id"]) for share in (0.1, 0.5, 1.0))
    assert few < more < every
    assert (20 < len(few) < 60, 150 < len(more) < 250, len(every)) == (True, True, 400)
    assert few == set(sampled(rows.reverse(), 0.1)["prediction_id"])


def test_nothing_served_is_unknown() -> None:
    compared, rows = compare(answers([]), VIEWS, FRAMES)
    assert (compared, rows.schema) == (0, pl.Schema(COLUMNS))
    assert verdict(compared, rows).state == "unknown"
    assert compare(answers([({"line": "a", "stop": 1}, NOW, {})]), VIEWS, FRAMES)[0] == 0


def test_entities_that_are_null_in_every_question() -> None:
    nobody = {"line": None, "stop": 1}
    rows = answers([(nobody, NOW, dict.fromkeys(NAMES))])
    assert compare(rows, VIEWS, FRAMES)[1].is_empty()


def test_a_view_whose_entity_and_time_are_derived() -> None:
    view = FeatureView(
        name="derived",
        source="trips",
        entities=(Entity(name="place"),),
        time="ended",
        derive={
            "place": pl.col("line") + pl.col("stop").cast(pl.String),
            "ended": pl.col("at") + pl.duration(minutes=20),
        },
        description="By a key and a time that the raw table does not hold.",
        features=(Window("minutes", "count", over=(2 * HOUR,)),),
    )
    rows = answers(
        [
            ({"place": "a1"}, NOW, {"derived__minutes_count_2h": 1}),
            ({"place": "b1"}, NOW, {"derived__minutes_count_2h": 1}),
        ]
    )
    assert compare(rows, {"derived": view}, FRAMES)[1].rows() == [("p1", "derived__minutes_count_2h", 1.0, 0.0)]


def test_what_was_known_long_before_it_opened_is_in_reach() -> None:
    """A timetable of last week: its trips open today."""
    known = START - timedelta(days=7)
    plan = pl.DataFrame(
        {"trip": [1, 2], "line": ["a", "a"], "at": [NOW - HOUR, NOW + HOUR], KNOWN_AT: [known, known]},
        schema_overrides={"at": UTC_TIME, KNOWN_AT: UTC_TIME},
    )
    view = replace(
        LINES,
        entities=(LINE,),
        time=KNOWN_AT,
        derive={},
        features=tuple(f for f in LINES.features if isinstance(f, Active)),
    )
    frames = {"trips": plan, "ends": frames_of([], [])["ends"]}
    rows = answers([({"line": "a"}, NOW, {"lines__open_3h": 1})])
    assert compare(rows, {"lines": view}, frames)[1].is_empty()


def test_the_newest_look_at_a_day_holds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    none = pl.DataFrame(schema=COLUMNS)
    one = pl.DataFrame([("p0", "lines__open_3h", 1.0, 2.0)], schema=COLUMNS, orient="row")
    for days, compared, rows in [
        ("2024-03-09..2024-03-09", 0, none),  # looked at before the answers were in
        ("2024-03-09..2024-03-09", 9, one),
        ("2024-03-09..2024-03-09", 9, one),  # a retry adds nothing
        ("2024-03-10..2024-03-10", 5, none),
        ("2024-03-09..2024-03-09", 9, none),
    ]:
        note_skew(ledger, "desk", days, NOW, verdict(compared, rows))
    assert len(ledger.entries("skew", "desk")) == 4
    held = {
        entry.body["days"]: (entry.body["compared"], entry.body["differing"]) for entry in newest_skew(ledger, "desk")
    }
    assert held == {"2024-03-09..2024-03-09": (9, 0), "2024-03-10..2024-03-10": (5, 0)}
