"""Request features: the same to the bit in a training set, in a request of any size, and made anew by the oracle."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.features.live import LiveViews
from ml_platform.features.request_oracle import Answer, RequestOracle
from ml_platform.features.request_values import RequestPlan
from ml_platform.features.skew import compare
from ml_platform.features.windows import AS_OF
from ml_platform.serving.answers import VectorPlan
from ml_platform.serving.champion import plan
from ml_platform.serving.events import newest_values
from ml_platform.spec import (
    KNOWN_AT,
    Computed,
    DeclarationError,
    Entity,
    FeatureView,
    Label,
    Latest,
    RequestView,
    Task,
    Window,
)
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.tiles import SqliteTiles
from ml_platform.training.training_set import input_names, join_features, question_rows

HOUR = timedelta(hours=1)
UTC_TIME = pl.Datetime("us", "UTC")
START = datetime(2024, 11, 3, 3, tzinfo=UTC)  # New York's clocks go back three hours later
LINE, STOP = Entity(name="line"), Entity(name="stop", dtype="int64")
WAITS = FeatureView(
    name="waits",
    source="trips",
    entities=(LINE, STOP),
    description="",
    key=("trip",),
    features=(Window("minutes", "mean", over=(3 * HOUR,)), Window("minutes", "count", over=(3 * HOUR,))),
)
NEWEST = FeatureView(
    name="newest", source="trips", entities=(LINE,), description="", key=("trip",), features=(Latest("minutes"),)
)
MEAN, COUNT, LAST = (pl.col(name) for name in ("waits__minutes_mean_3h", "waits__minutes_count_3h", "newest__minutes"))
LOCAL = pl.col("happens_at").dt.convert_time_zone("America/New_York")
ASKED = RequestView(
    name="asked",
    entities=(LINE,),
    request={"happens_at": "timestamp", "riders": "float64", "rush": "bool"},
    description="",
    features=(
        Computed("minute", LOCAL.dt.hour().cast(pl.Int64) * 60 + LOCAL.dt.minute(), "int64"),
        Computed("is_dst", LOCAL.dt.dst_offset().dt.total_seconds() > 0, "int64"),
        Computed("ahead", (pl.col("happens_at") - pl.col("asked_at")).dt.total_seconds(fractional=True)),
        Computed("above", LAST - MEAN),
        Computed("a_trip", pl.col("riders") / COUNT),
        Computed("odds", (MEAN / (LAST - MEAN)).log()),
        Computed("squeezed", (pl.col("riders") * 1e-3).tanh() + MEAN.fill_null(-1.0).sqrt()),
        Computed("name", pl.col("line").str.len_chars() + pl.col("line").str.contains("b").cast(pl.Int64), "int64"),
        Computed("rushed", pl.when(pl.col("rush")).then(COUNT * 2).otherwise(COUNT), "int64"),
        Computed("worst", pl.max_horizontal(MEAN, LAST, pl.col("riders"))),
    ),
)
VIEWS = (WAITS, NEWEST, ASKED)
BY_NAME = {view.name: view for view in VIEWS}
PLAN = RequestPlan(VIEWS)

numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 5e-324])
seconds = st.integers(0, 6 * 3600) | st.integers(-(10**9), 5 * 10**9)  # around the clocks' change, and far away
moments = st.builds(timedelta, seconds=seconds, microseconds=st.sampled_from([0, 1, 999_999])).map(START.__add__)
one_row = st.fixed_dictionaries(
    {
        "line": st.sampled_from(["a", "b", "line b", None]),
        "asked_at": moments,
        "happens_at": st.none() | moments,
        "riders": numbers,
        "rush": st.sampled_from([True, False, None]),
        "waits__minutes_mean_3h": numbers,
        "waits__minutes_count_3h": st.none() | st.integers(0, 3) | st.integers(-(2**62), 2**62),
        "newest__minutes": numbers,
    }
)


def bits(row: tuple[Any, ...]) -> list[Any]:
    return [value.hex() if isinstance(value, float) else value for value in row]


def by_rows(rows: list[dict[str, Any]]) -> list[list[Any]]:
    return [bits(row) for row in PLAN.of_rows(rows)]


@settings(max_examples=150, deadline=None)
@given(st.lists(one_row, min_size=1, max_size=12), st.data())
def test_a_row_has_the_same_values_in_any_company(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    frame = pl.DataFrame(rows, schema=PLAN.inputs)
    trained = [bits(row) for row in PLAN.of_frame(frame).iter_rows()]
    assert by_rows(rows) == trained
    order = data.draw(st.permutations(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    for part in (order[:cut], order[cut:]):
        assert by_rows([rows[n] for n in part]) == [trained[n] for n in part]
    oracle = RequestOracle(ASKED, {"waits": WAITS, "newest": NEWEST})
    for row, expected in zip(rows, trained, strict=True):
        sent = {name: row[name] for name in ("line", "riders", "rush")}
        sent["happens_at"] = row["happens_at"] and row["happens_at"].isoformat()
        (recomputed,) = oracle.values([Answer(sent, row["asked_at"], row.__getitem__)])
        assert bits(tuple(recomputed.values())) == expected


def test_many_rows_are_no_other_company() -> None:
    """Beyond the size at which Polars hands parts of a column to several threads."""
    some = [{"minute": n % 1440, "riders": math.sin(n) * 10 ** (n % 9), "mean": math.cos(n)} for n in range(200_000)]
    frame = pl.DataFrame(
        {
            "line": ["a", "b"] * 100_000,
            "asked_at": START,
            "happens_at": [START + timedelta(minutes=row["minute"]) for row in some],
            "riders": [row["riders"] for row in some],
            "rush": True,
            "waits__minutes_mean_3h": [row["mean"] for row in some],
            "waits__minutes_count_3h": range(200_000),
            "newest__minutes": 1.5,
        },
        schema=PLAN.inputs,
    )
    trained = PLAN.of_frame(frame)
    for n in range(0, frame.height, 9_973):
        assert by_rows(frame[n : n + 1].to_dicts()) == [bits(trained.row(n))]


def test_what_is_not_finite_is_missing_and_clocks_change() -> None:
    row = {"line": "b", "asked_at": START, "happens_at": datetime(2024, 11, 3, 5, 59, tzinfo=UTC), "riders": 3.0}
    row |= {"rush": None, "waits__minutes_mean_3h": 0.0, "waits__minutes_count_3h": 0, "newest__minutes": 0.0}

    def found(**changes: Any) -> dict[str, Any]:
        (values,) = PLAN.of_rows([row | changes])
        return {name.removeprefix("asked__"): value for name, value in zip(PLAN.names, values, strict=True)}

    assert found()["a_trip"] is None  # 3 / 0
    assert found()["odds"] is None  # log of 0 / 0
    assert found(newest__minutes=-1.0, waits__minutes_mean_3h=1.0)["odds"] is None  # log of less than nothing
    assert (found()["minute"], found()["is_dst"], found()["ahead"]) == (119, 1, 10740.0)
    later = found(happens_at=datetime(2024, 11, 3, 6, 1, tzinfo=UTC))  # clocks show this hour for the second time
    assert (later["minute"], later["is_dst"]) == (61, 0)
    missing = found(**dict.fromkeys(row.keys() - {"asked_at"}))
    assert set(missing.values()) == {None}


def test_an_expression_that_fails_in_spite_of_all_is_named() -> None:
    view = RequestView(
        name="v", description="", request={"text": "string"}, features=(Computed("n", pl.col("text").cast(pl.Int64)),)
    )
    with pytest.raises(DeclarationError, match=r"features v__n cannot be computed of these 1 rows .*strict=False"):
        RequestPlan([view]).of_rows([{"text": "seven"}])
    assert RequestPlan([view]).of_rows([]) == []


# From raw rows, through the stores that serve

TASK = Task(
    name="late",
    spine="plans",
    key="plan",
    happens_at="leaves",
    lead=HOUR,
    entities=("plan", "line", "stop"),
    categorical=("line",),
    label=Label(table="trips", on=("plan",), value=pl.col("minutes") > 5, description=""),
    description="",
)
trips = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", None]), st.integers(1, 2), st.integers(0, 5 * 60), st.none() | st.floats(-100, 100)
    ),
    max_size=25,
)
plans = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "new", None]),
        st.sampled_from([1, 2, None]),
        st.none() | st.floats(-50, 50),
        st.booleans(),
        st.integers(0, 24 * 60),
    ),
    min_size=1,
    max_size=8,
)
END = START + 5 * HOUR  # when all of it is known, and everything is asked


def raw(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    listed = [(f"t{n}", row[0], row[1], row[3], START + timedelta(minutes=row[2])) for n, row in enumerate(rows)]
    types = {"trip": pl.String, "line": pl.String, "stop": pl.Int64, "minutes": pl.Float64, KNOWN_AT: UTC_TIME}
    return pl.DataFrame(listed, types, orient="row").sort(KNOWN_AT, "trip")


def asked_rows(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    listed = [(f"p{n}", *row[:-1], END + timedelta(minutes=row[-1])) for n, row in enumerate(rows)]
    types = {"plan": pl.String, "line": pl.String, "stop": pl.Int64, "riders": pl.Float64, "rush": pl.Boolean}
    return pl.DataFrame(listed, {**types, "leaves": UTC_TIME}, orient="row")


def served(folder: Path, rows: pl.DataFrame, spine: pl.DataFrame) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of a request, and the vectors that real stores give for them."""
    live = LiveViews([WAITS], SqliteTiles(folder / "live.db"))
    live.apply("trips", rows)
    online = OnlineStore(folder / "online.db", "demo")
    online.publish(NEWEST, newest_values(NEWEST, rows), END)
    categorical, lookups, computed = plan(input_names(TASK, VIEWS), TASK, BY_NAME)
    champion: Any = SimpleNamespace(categorical=categorical, lookups=lookups, computed=computed)
    sent = [{**row, "leaves": None, "happens_at": row["leaves"].isoformat()} for row in spine.iter_rows(named=True)]
    return sent, VectorPlan(champion, online, live).read(sent, END, END)


@settings(max_examples=40, deadline=None)
@given(trips, plans)
def test_what_is_served_is_what_a_model_is_trained_on(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[Any, ...]], asked: list[tuple[Any, ...]]
) -> None:
    rows, spine = raw(happened), asked_rows(asked)
    moments = [pl.lit(END, UTC_TIME).alias(name) for name in (AS_OF, "asked_at")]
    questions = question_rows(TASK, spine, ["riders", "rush", "happens_at"]).with_columns(moments)
    trained = join_features(questions, {"trips": rows}, VIEWS)
    sent, vectors = served(tmp_path_factory.mktemp("stores"), rows, spine)
    names = input_names(TASK, VIEWS)
    assert [bits(tuple(vector[name] for name in names)) for vector in vectors] == [
        bits(row) for row in trained.select(names).iter_rows()
    ]
    assert compare(log_of(sent, vectors), BY_NAME, {"trips": rows})[1].is_empty()


def log_of(sent: list[dict[str, Any]], vectors: list[Mapping[str, Any]]) -> pl.DataFrame:
    """The prediction log's rows of a request that is asked at ``END``."""
    names = input_names(TASK, VIEWS)[1:]
    values = [[None if vector[name] is None else float(vector[name]) for name in names] for vector in vectors]
    return pl.DataFrame(
        {
            "prediction_id": [row["plan"] for row in sent],
            "entities": [json.dumps(row) for row in sent],
            "feature_names": [names] * len(sent),
            "features": pl.Series(values, dtype=pl.List(pl.Float64)),
        }
    ).with_columns(pl.lit(END, UTC_TIME).alias("asked_at"), pl.lit(END, UTC_TIME).alias(AS_OF))


# Skew

ROWS = raw([("a", 1, 200, 4.0), ("a", 1, 250, 9.0), ("b", 1, 280, 2.0)])
SPINE = asked_rows([("a", 1, 7.5, True, 90)])


def differing(folder: Path, **changes: Any) -> list[tuple[str, float | None, float | None]]:
    sent, (vector,) = served(folder, ROWS, SPINE)
    found = compare(log_of(sent, [vector | changes]), BY_NAME, {"trips": ROWS})[1]
    return list(found.select("feature", "served", "recomputed").iter_rows())


def test_a_request_feature_that_is_computed_otherwise_online_is_named(tmp_path: Path) -> None:
    assert differing(tmp_path / "same") == []
    # asked in UTC instead of New York's time; a zero where there is no answer; the last bit
    assert differing(tmp_path / "zone", asked__minute=9 * 60 + 30) == [("asked__minute", 570.0, 270.0)]
    (shifted,) = differing(tmp_path / "default", asked__odds=0.0)
    assert shifted[:2] == ("asked__odds", 0.0)
    assert differing(tmp_path / "bit", asked__above=2.5 * (1 + 2**-52)) == [("asked__above", 2.5 * (1 + 2**-52), 2.5)]


def test_a_request_feature_is_recomputed_of_recomputed_values(tmp_path: Path) -> None:
    """Served consistently, of a looked-up value that was wrong: both are found."""
    wrong = differing(tmp_path, waits__minutes_mean_3h=5.0, asked__above=4.0)
    assert [name for name, *_ in wrong] == ["waits__minutes_mean_3h", "asked__above"]


def test_a_field_that_older_answers_did_not_carry_is_a_difference_and_no_failure(tmp_path: Path) -> None:
    sent, vectors = served(tmp_path, ROWS, SPINE)
    del sent[0]["riders"]
    found = compare(log_of(sent, vectors), BY_NAME, {"trips": ROWS})[1]
    assert found["feature"].to_list() == ["asked__a_trip", "asked__squeezed"]  # not the greatest of three
