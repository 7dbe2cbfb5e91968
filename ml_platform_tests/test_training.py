"""Training rows against a brute-force oracle; estimators: the same answers from frames, requests and files."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.spec import (
    DeclarationError,
    Entity,
    FeatureView,
    GatePolicy,
    Label,
    Latest,
    MissingHistory,
    ModelSpec,
    Task,
    TooFewLabels,
)
from ml_platform.training import training_set
from ml_platform.training.steps import refuse_empty_features

START = datetime(2024, 3, 1, tzinfo=UTC)
MOMENT = pl.Datetime("us", "UTC")
TASK = Task(
    name="late",
    spine="trips",
    key="trip",
    happens_at="leaves",
    lead=timedelta(hours=2),
    grid=timedelta(hours=1),
    entities=("trip", "line", "stop", "minute"),
    categorical=("line",),
    label=Label(table="arrivals", on=("trip",), value=(pl.col("delay") >= 15).cast(pl.Int8), description="late"),
    description="late?",
    derive={"minute": pl.col("leaves").dt.minute().cast(pl.Int64)},
)
BY_LINE = FeatureView(
    name="by_line",
    source="lines",
    entities=(Entity(name="line"),),
    features=(Latest("a"), Latest("n", "int64")),
    description="",
)
BY_STOP = FeatureView(
    name="by_stop",
    source="stops",
    entities=(Entity(name="line"), Entity(name="stop", dtype="int64")),
    features=(Latest("a"),),
    description="",
)
VIEWS = (BY_LINE, BY_STOP)
SPEC = ModelSpec(
    name="late_trees",
    task=TASK,
    views=("by_line", "by_stop"),
    estimator="lightgbm",
    parameters={"num_leaves": 7, "min_data_in_leaf": 20, "learning_rate": 0.1},
    description="",
    min_rows=300,
    train_window=timedelta(days=60),
    gate=GatePolicy(min_rows=200, baselines=("constant",)),  # the truth of this world is a logistic regression
)


def moments(hours: list[float]) -> pl.Series:
    return pl.Series([START + timedelta(hours=h) for h in hours], dtype=MOMENT)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """Trips with null entities, and what became known about lines and stops, much of it at the same full hours."""
    size = draw(st.integers(0, 25))
    lists = {
        "leaves": st.integers(0, 20 * 60).map(lambda minutes: minutes / 60),
        "line": st.sampled_from(["a", "b", "new", None]),
        "stop": st.sampled_from([1, 2, None]),
    }
    drawn = {name: draw(st.lists(s, min_size=size, max_size=size)) for name, s in lists.items()}
    trips = pl.DataFrame(
        {
            "trip": [f"t{n}" for n in range(size)],
            "leaves": moments(drawn["leaves"]),
            "line": pl.Series(drawn["line"], dtype=pl.String),
            "stop": pl.Series(drawn["stop"], dtype=pl.Int64),
        }
    )
    tables = {}
    for view in VIEWS:
        keys = draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.integers(-3, 20)), max_size=30))
        log = pl.DataFrame(
            {
                "line": pl.Series([k[0] for k in keys], dtype=pl.String),
                "stop": pl.Series([k[1] for k in keys], dtype=pl.Int64),
                "known_at": moments([k[2] for k in keys]),
                "a": pl.Series([draw(st.none() | st.floats(-5, 5)) for _ in keys], dtype=pl.Float64),
                "n": pl.Series(range(len(keys)), dtype=pl.Int64),
            }
        )
        log = log.unique([*view.entity_names, "known_at"], keep="first", maintain_order=True)
        tables[view.source] = log.select(*view.entity_names, "known_at", *view.schema())
    return trips, tables


def newest(log: pl.DataFrame, row: Mapping[str, Any], view: FeatureView) -> dict[str, Any]:
    """The oracle: look at every row of the raw table."""
    best: dict[str, Any] = dict.fromkeys(["known_at", *view.schema()])
    for line in log.iter_rows(named=True):
        mine = all(row[e] is not None and line[e] == row[e] for e in view.entity_names)
        newer = best["known_at"] is None or line["known_at"] > best["known_at"]
        if mine and line["known_at"] <= row["as_of"] and newer:
            best = line
    return {f"{view.name}__{name}": best[name] for name in view.schema()}


@settings(max_examples=80, deadline=None)
@given(worlds())
def test_features_are_the_newest_known_row_for_row(world: tuple[pl.DataFrame, dict[str, pl.DataFrame]]) -> None:
    trips, tables = world
    rows = training_set.question_rows(TASK, trips)
    found = training_set.join_features(rows, tables, VIEWS)
    assert found.select(rows.columns).equals(rows)
    assert found.columns == [*rows.columns, "by_line__a", "by_line__n", "by_stop__a"]
    for row in found.iter_rows(named=True):
        for view in VIEWS:
            expected = newest(tables[view.source], row, view)
            assert {name: row[name] for name in expected} == expected


def test_a_question_stands_at_the_last_full_grid_step_before_it_is_asked() -> None:
    trips = pl.DataFrame({"trip": ["t"], "leaves": moments([5.99]), "line": ["a"], "stop": [1]})
    row = training_set.question_rows(TASK, trips).row(0, named=True)
    assert row["asked_at"] == START + timedelta(hours=3.99)
    assert row["as_of"] == START + timedelta(hours=3)
    assert row["minute"] == 59
    with pytest.raises(DeclarationError, match=r"task late needs stop in raw/trips"):
        training_set.question_rows(TASK, trips.drop("stop"))


def world_of(days: int, rows: int = 1500, seed: int = 3) -> dict[str, pl.DataFrame]:
    """``trips``, ``arrivals``, ``lines`` and ``stops``; lateness depends on the line and on by_line's ``a``."""
    draw = np.random.default_rng(seed)
    leaves = np.sort(draw.uniform(0, days * 24, rows))
    steps = np.arange(-24, days * 24)
    line = draw.integers(0, 3, rows)
    logs = {}
    level = {}
    for code in range(3):
        level[code] = draw.normal(size=steps.size)
    logs["lines"] = pl.concat(
        pl.DataFrame({"line": ["abc"[c]] * steps.size, "known_at": moments(steps.tolist()), "a": v, "n": steps})
        for c, v in level.items()
    )
    logs["stops"] = pl.DataFrame({"line": ["a"], "stop": [1], "known_at": moments([0]), "a": [1.0]})
    seen = np.array([level[c][int(np.floor(t - 2)) + 24] for c, t in zip(line, leaves, strict=True)])
    chance = 1 / (1 + np.exp(-(1.5 * seen + line - 2)))
    delay = np.where(draw.random(rows) < chance, 30, 0)
    trips = pl.DataFrame(
        {
            "trip": [f"t{n:05}" for n in range(rows)],
            "leaves": moments(leaves.tolist()),
            "line": ["abc"[c] for c in line],
            "stop": draw.integers(0, 3, rows),
            "known_at": moments((leaves - 24).tolist()),
        }
    )
    arrivals = pl.DataFrame(
        {
            "trip": trips["trip"],
            "delay": pl.Series(delay).set(pl.Series(np.arange(rows) % 50 == 0), None),
            "known_at": moments((leaves + 3 + delay / 10).tolist()),
        }
    )
    return {"trips": trips, "arrivals": arrivals, **logs}


def rows_of(world: dict[str, pl.DataFrame], now: datetime, spec: ModelSpec = SPEC) -> pl.DataFrame:
    return training_set.training_rows(spec, world["trips"], world["arrivals"], world, VIEWS, now)


def test_only_labels_known_by_now_are_there_in_a_total_order() -> None:
    world = world_of(40)
    now = START + timedelta(days=30)
    rows = rows_of(world, now)
    truths = world["arrivals"].filter(pl.col("known_at") <= now, pl.col("delay").is_not_null())
    assert set(rows["trip"]) == set(truths["trip"])
    assert rows["label_known_at"].max() <= now
    assert rows.equals(rows.sort("happens_at", "trip"))
    assert rows.columns == [
        *("trip", "happens_at", "as_of", "line", "by_line__a", "by_line__n", "by_stop__a", "label", "label_known_at")
    ]
    expected = dict(truths.select("trip", pl.col("delay") >= 15).iter_rows())
    assert dict(rows.select("trip", "label").iter_rows()) == expected
    shuffled = {name: table.sample(fraction=1, shuffle=True, seed=1) for name, table in world.items()}
    assert training_set.content_hash(rows_of(shuffled, now)) == training_set.content_hash(rows)
    assert training_set.content_hash(rows_of(world, now + timedelta(hours=5))) != training_set.content_hash(rows)
    late = world["trips"].with_columns(pl.col("leaves").alias("known_at"))
    assert rows_of({**world, "trips": late}, now).is_empty()


def test_split_keeps_the_newest_days_out_and_their_late_labels_too() -> None:
    now = START + timedelta(days=40)
    spec = replace(SPEC, train_window=timedelta(days=20))
    parts = training_set.split(rows_of(world_of(40), now, spec), spec, now)
    held_from = now - timedelta(days=7)
    train, holdout = (parts.filter(part=part) for part in ("train", "holdout"))
    assert holdout["happens_at"].min() >= held_from
    assert train["label_known_at"].max() <= held_from
    assert train["happens_at"].min() >= held_from - timedelta(days=20)
    between = rows_of(world_of(40), now, spec).filter(
        pl.col("happens_at") < held_from, pl.col("label_known_at") > held_from
    )
    assert between.height > 0
    assert set(between["trip"]).isdisjoint(parts["trip"])
    with pytest.raises(TooFewLabels, match=r"late_trees has \d+ labelled rows .* \(5000 are needed\) and \d+"):
        training_set.split(rows_of(world_of(40), now), replace(SPEC, min_rows=5000), now)


def test_a_feature_that_is_null_in_every_training_row_is_refused_by_name() -> None:
    rows = rows_of(world_of(20), START + timedelta(days=20))
    refuse_empty_features(SPEC, rows)
    empty = rows.with_columns(by_stop__a=pl.lit(None, pl.Float64))
    with pytest.raises(MissingHistory, match=r"late_trees: by_stop__a is null in all \d+ .* look at features/by_stop"):
        refuse_empty_features(SPEC, empty)


def test_label_maturity_counts_cancelled_trips_as_known() -> None:
    world = world_of(40)
    now = START + timedelta(days=30)
    found = training_set.label_maturity(SPEC, world["trips"], world["arrivals"], now)
    within = world["trips"].filter(pl.col("leaves") < now, pl.col("leaves") >= now - timedelta(days=7))
    unknown = world["arrivals"].filter(pl.col("known_at") > now).join(within, on="trip", how="semi")
    assert unknown.height > 0
    assert found == pytest.approx(1 - unknown.height / within.height)


def test_a_task_with_a_quantity_has_it_in_its_rows() -> None:
    world = world_of(20)
    label = replace(TASK.label, quantity=pl.col("delay"))
    found = rows_of(world, START + timedelta(days=20), replace(SPEC, task=replace(TASK, label=label)))
    assert found.drop("quantity").equals(rows_of(world, START + timedelta(days=20)))
    wanted = found.join(world["arrivals"], on="trip", maintain_order="left")["delay"].cast(pl.Float64)
    assert found["quantity"].equals(wanted.alias("quantity"))


def test_of_a_corrected_question_or_label_one_version_counts() -> None:
    world, now = world_of(40), START + timedelta(days=30)
    plain = rows_of(world, now).filter(pl.col("label") == 1).head(1)
    trip, at = plain["trip"].item(), plain["label_known_at"].item()
    known = {"known_at": pl.lit(at + timedelta(hours=1)).cast(pl.Datetime("us", "UTC"))}
    other = world["arrivals"].filter(pl.col("trip") == trip).with_columns(pl.lit(0).cast(pl.Int64).alias("delay"))
    moved = world["trips"].filter(pl.col("trip") == trip).with_columns(pl.lit("z").alias("line"))
    early = moved.with_columns(known_at=pl.col("known_at") + timedelta(minutes=1))
    late = moved.with_columns(**known)
    for trips, line in ((early, "z"), (late, plain["line"].item())):
        changed = {
            **world,
            "arrivals": pl.concat([world["arrivals"], other.with_columns(**known)]),
            "trips": pl.concat([world["trips"], trips]),
        }
        rows = rows_of(changed, now)
        assert rows.height == rows_of(world, now).height
        assert rows.filter(pl.col("trip") == trip).select("line", "label").row(0) == (line, 0)
        before = rows_of(changed, at)
        assert before.filter(pl.col("trip") == trip).select("label", "label_known_at").row(0) == (1, at)
