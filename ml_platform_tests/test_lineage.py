"""Lineage against the computations themselves: what is not named changes no value, what is named cannot be missing."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ml_platform import asset_keys
from ml_platform.definitions import house
from ml_platform.features.live_rows import Needs, counted
from ml_platform.features.windows import AS_OF, feature_rows, values_at
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.spec import (
    ASKED_AT,
    HAPPENS_AT,
    KNOWN_AT,
    Active,
    Entity,
    FeatureView,
    Project,
    RequestView,
    SourceTable,
    Window,
)
from ml_platform.spec import expectations as gxe
from ml_platform.spec.impact import impact
from ml_platform.spec.lineage import (
    Column,
    feature_columns,
    label_columns,
    question_columns,
    request_columns,
    view_columns,
)
from ml_platform.training.lineage import column_types, training_columns

FLIGHTS, TRIPS = "ml_platform.projects.flights", "ml_platform_tests.trips"
TIME = pl.Datetime("us", "UTC")
START, HOUR = datetime(2024, 3, 5, tzinfo=UTC), timedelta(hours=1)


def table(name: str, **columns: pl.DataType | type[pl.DataType]) -> SourceTable:
    return SourceTable(
        name=name,
        read=lambda start, end: pl.DataFrame(),
        columns={**columns, KNOWN_AT: TIME},
        key=("id",),
        description="",
        known_at_source="given",
        rules=(gxe.ExpectColumnValuesToBeInSet(column="id", value_set=("i1",)),),
    )


TABLES = {
    "visits": table("visits", id=pl.String, who=pl.String, at=TIME, a=pl.Float64, b=pl.Int64, flag=pl.Boolean),
    "ends": replace(
        table("ends", id=pl.String), rules=(gxe.ExpectColumnValuesToReferTo(column="id", table="visits", other="id"),)
    ),
}
DERIVED = {
    "big": pl.col("a") > 1,
    "both": pl.col("a") + pl.col("b"),
    "whose": pl.col("who") + "x",
    "a": pl.col("b").cast(pl.Float64) * 2,  # takes the place of the raw one
    "unused": pl.col("flag").not_(),
}


def raw(*names: str) -> frozenset[Column]:
    return frozenset(Column("raw", *name.split(".")) for name in names)


# Expectations written out by hand

BY_HAND = {
    ("weather_now", "precip_sum_3h"): raw(
        "weather.precip", "weather.origin", "weather.observed_at", "weather.known_at"
    ),
    ("weather_now", "temp_last_6h"): raw("weather.temp", "weather.origin", "weather.observed_at", "weather.known_at"),
    ("route_arrivals", "late_share_14d"): raw(
        *(f"flight_outcomes.{name}" for name in ("flight_id", "arr_delay", "origin", "dest", "known_at"))
    ),
    ("aircraft", "seats"): raw("planes.seats", "planes.tailnum", "planes.known_at"),
    ("origin_demand", "scheduled_6h"): raw(
        *(f"flight_schedules.{name}" for name in ("flight_id", "origin", "sched_dep", "known_at"))
    ),
    ("origin_demand", "waiting_6h"): raw(
        *(f"flight_schedules.{name}" for name in ("flight_id", "origin", "sched_dep", "known_at")),
        *(
            f"{closes}.{name}"
            for closes in ("flight_departures", "flight_outcomes")
            for name in ("flight_id", KNOWN_AT)
        ),
    ),
}


@pytest.mark.parametrize(("view", "feature"), BY_HAND)
def test_a_feature_depends_on_these_columns_of_flights(view: str, feature: str) -> None:
    project = load_project(FLIGHTS)
    assert feature_columns(project.views[view], project.tables)[feature] == BY_HAND[view, feature]


def view_of(**changes: object) -> FeatureView:
    plain = {"name": "v", "source": "visits", "entities": (Entity(name="who"),), "description": "", "key": ("id",)}
    return FeatureView(**{"features": (Window("a", "mean", over=(HOUR,)),), **plain, **changes})  # type: ignore[arg-type]


def test_derived_columns_conditions_and_entities_lead_to_raw_ones() -> None:
    view = view_of(
        entities=(Entity(name="whose"),),
        derive=DERIVED,
        where=pl.col("big") & (pl.col("b") > 0),
        time="at",
        features=(
            Window("both", "sum", over=(HOUR, 2 * HOUR)),
            Window("a", "last", over=(HOUR,)),
            Active(opened_at="at", closed_by=("ends",), key=("id",), expires_after=HOUR, name="open"),
        ),
    )
    common = raw("visits.id", "visits.who", "visits.a", "visits.b", "visits.known_at")
    found = feature_columns(view, TABLES)
    assert found == {
        "both_sum_1h": common | raw("visits.at"),
        "both_sum_2h": common | raw("visits.at"),
        "a_last_1h": common | raw("visits.at"),
        "open_1h": common | raw("visits.at", "ends.id", "ends.known_at"),
    }
    assert view_columns(view, TABLES) == found["open_1h"] | raw("visits.flag")


def test_a_condition_that_selects_columns_by_type_may_depend_on_all() -> None:
    view = view_of(where=pl.all_horizontal(pl.col(pl.String).is_not_null()))
    everything = raw(*(f"visits.{name}" for name in TABLES["visits"].columns))
    assert feature_columns(view, TABLES) == {"a_mean_1h": everything}


def test_a_models_inputs_and_label_of_trips() -> None:
    project = load_project(TRIPS)
    spec = project.models["late"]
    found = training_columns(spec, project)
    assert found["line"] == raw("asked.line")
    assert found["planned__miles"] == {Column("features", "planned", "miles")} | raw("asked.trip", "asked.leaves")
    past = {Column("features", "line_past", "minutes_late_mean_6h")}
    assert found["line_past__minutes_late_mean_6h"] == past | raw("asked.line", "asked.leaves")
    assert found["label"] == raw("ended.minutes_late", "ended.trip", "asked.trip")
    assert list(found) == list(column_types(spec, project))
    of_late = {Column("features", "line_past", f"minutes_late_count_{span}") for span in ("6h", "1d")}
    asked = raw("asked.line", "asked.leaves")
    assert found["leaving__of_late"] == {Column("features", "leaving", "of_late")} | of_late | asked
    assert found["leaving__notice"] == {Column("features", "leaving", "notice")} | raw("asked.leaves")
    hour = replace(spec.task, entities=("trip", "hour"), derive={"hour": pl.col("leaves").dt.hour()})
    assert question_columns(hour, project.tables)["hour"] == raw("asked.leaves")
    assert label_columns(hour, project.tables) == raw("ended.minutes_late", "ended.trip")


# Everything that is declared


@pytest.mark.parametrize("package", [FLIGHTS, TRIPS])
def test_every_feature_and_model_input_has_a_lineage_of_columns_that_exist(package: str) -> None:
    project = load_project(package)
    exist = {Column("raw", table.name, name) for table in project.tables.values() for name in table.columns}
    for view in project.views.values():
        found = feature_columns(view, project.tables)
        assert list(found) == list(view.schema())
        assert all(columns and columns <= exist for columns in found.values())
        exist |= {Column("features", view.name, name) for name in found}
    for request_view in project.request_views.values():
        found = request_columns(request_view, project)
        assert list(found) == list(request_view.schema())
        assert all(columns and columns <= exist for columns in found.values())
        exist |= {Column("features", request_view.name, name) for name in found}
    for spec in project.models.values():
        assert all(columns and columns <= exist for columns in training_columns(spec, project).values())


@pytest.mark.parametrize("package", [FLIGHTS, TRIPS])
def test_dagster_is_told(package: str, tmp_path: Path) -> None:
    project = load_project(package)
    graph = house(Profile.at(tmp_path, project=package), clamp=False).resolve_asset_graph()
    keys = [asset_keys.features(name) for name in project.all_views]
    keys += [asset_keys.training_set(name) for name in project.models]
    for key in keys:
        told = graph.get(key).metadata
        lineage, schema = told["dagster/column_lineage"], told["dagster/column_schema"]
        assert isinstance(lineage, dg.TableColumnLineage)
        assert set(lineage.deps_by_column) <= {column.name for column in schema.columns}
        parents = {dep.asset_key for deps in lineage.deps_by_column.values() for dep in deps}
        assert parents <= graph.get(key).parent_keys
        assert all(column.description for column in schema.columns if lineage.deps_by_column.get(column.name))


# Against the computations


def some_rows(columns: Mapping[str, pl.DataType | type[pl.DataType]], seed: int, size: int = 40) -> pl.DataFrame:
    """Rows of a few hours with few values, many at the same moment; an ``id`` is one row's own."""
    draw = np.random.default_rng(seed)
    minutes = [START + timedelta(minutes=30 * int(n)) for n in draw.integers(0, 10, size)]
    made = {
        pl.String: lambda: [f"i{n}" for n in draw.integers(0, 6, size)],
        pl.Int64: lambda: draw.integers(-2, 3, size),
        pl.Float64: lambda: draw.integers(-2, 4, size) / 2,
        pl.Boolean: lambda: draw.integers(0, 2, size) == 1,
        TIME: lambda: [
            at - timedelta(minutes=int(n)) for at, n in zip(minutes, draw.integers(0, 60, size), strict=True)
        ],
    }
    own = {KNOWN_AT: minutes, "id": [f"i{n}" for n in draw.permutation(size)]}
    data = {name: own[name] if name in own else made[dtype]() for name, dtype in columns.items()}  # type: ignore[index]
    return pl.DataFrame(data, schema=dict(columns))


def frames_of(tables: Mapping[str, SourceTable], seed: int = 1) -> dict[str, pl.DataFrame]:
    return {name: some_rows(table.columns, seed + number) for number, (name, table) in enumerate(tables.items())}


def computes(view: FeatureView, frames: Mapping[str, pl.DataFrame]) -> bool:
    """Whether the view's table can be computed from these frames, and its rows be followed one by one."""
    actives = tuple(feature for feature in view.features if isinstance(feature, Active))
    columns = tuple({feature.column for feature in view.features if not isinstance(feature, Active)})
    try:
        assert feature_rows(view, frames, START, START + 6 * HOUR, HOUR).height > 0
        if view.is_live:
            counted([Needs(view, columns, actives)], frames[view.source])
    except pl.exceptions.ColumnNotFoundError:
        return False
    return True


def asks(view: RequestView, project: Project, frames: Mapping[str, pl.DataFrame]) -> bool:
    """Whether questions can bring what the view reads of them."""
    task = next(spec.task for spec in project.models.values() if view.name in spec.views)
    moments = dict.fromkeys((HAPPENS_AT, ASKED_AT), task.happens_at)
    own = {moments.get(name, name) for each in view.features for name in each.reads if name in view.of_request}
    try:
        frames[task.spine].with_columns(**task.derive).select(own)
    except pl.exceptions.ColumnNotFoundError:
        return False
    return True


def named_views(project: Project, columns: set[Column]) -> set[str]:
    trees = [impact(project, str(column)) for column in columns]
    names = [branch.name for tree in trees for branch in tree.below]
    return {name.removeprefix("features/").split(".")[0] for name in names if name.startswith("features/")}


def without(frames: Mapping[str, pl.DataFrame], gone: set[Column]) -> dict[str, pl.DataFrame]:
    return {name: rows.drop(column.name for column in gone if column.table == name) for name, rows in frames.items()}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_columns_taken_from_flights_break_exactly_the_views_that_impact_names(data: st.DataObject) -> None:
    project = load_project(FLIGHTS)
    frames = frames_of(project.tables)
    columns = sorted(Column("raw", table.name, name) for table in project.tables.values() for name in table.columns)
    gone = data.draw(st.sets(st.sampled_from(columns), max_size=3))
    broken = {view.name for view in project.views.values() if not computes(view, without(frames, gone))}
    broken |= {
        view.name
        for view in project.request_views.values()
        if broken.intersection(view.views_read) or not asks(view, project, without(frames, gone))
    }
    assert broken == named_views(project, gone)


@st.composite
def views(draw: st.DrawFn) -> FeatureView:
    derive = {name: DERIVED[name] for name in draw(st.sets(st.sampled_from(sorted(DERIVED))))}
    numbers = ["a", "b", "flag", *({"big", "both", "unused"} & set(derive))]
    aggregates = st.sampled_from(["count", "mean", "last", "max", "change", "distinct"])
    windows = st.builds(
        Window, st.sampled_from(sorted(numbers)), aggregates, over=st.sampled_from([(HOUR,), (3 * HOUR,)])
    )
    active = Active(opened_at="at", closed_by=("ends",), key=("id",), expires_after=2 * HOUR, name="open")
    features = draw(st.lists(windows, min_size=1, max_size=3, unique_by=lambda w: f"{w.column}{w.aggregate}{w.over}"))
    conditions = [None, pl.col("flag"), pl.col("b") > -2, *([pl.col("big")] if "big" in derive else [])]
    return view_of(
        entities=(Entity(name=draw(st.sampled_from(["who", *({"whose"} & set(derive))]))),),
        derive=derive,
        where=draw(st.sampled_from(conditions)),
        time=draw(st.sampled_from([KNOWN_AT, "at"])),
        features=(*features, *([active] if draw(st.booleans()) else [])),
    )


PROJECT = replace(load_project(TRIPS), tables=TABLES, models={}, services={}, drift_policies={})
COLUMNS = sorted(Column("raw", table.name, name) for table in TABLES.values() for name in table.columns)


@settings(max_examples=150, deadline=None)
@given(views(), st.sets(st.sampled_from(COLUMNS), min_size=1, max_size=3), st.integers(0, 9))
def test_any_view_breaks_without_what_impact_names_and_no_other_column_moves_a_value(
    view: FeatureView, gone: set[Column], seed: int
) -> None:
    frames = frames_of(TABLES, seed)
    project = replace(PROJECT, views={view.name: view})
    assert computes(view, without(frames, gone)) == (named_views(project, gone) == set())

    (entity,) = view.entity_names
    suffix = "x" if entity == "whose" else ""
    asked = [(f"i{n}{suffix}", START + hours * HOUR) for n in range(6) for hours in (1, 3, 5)]
    points = pl.DataFrame(asked, schema={entity: pl.String, AS_OF: TIME}, orient="row")
    before = values_at(view, frames, points)
    for feature, columns in feature_columns(view, TABLES).items():
        other = frames_of(TABLES, seed + 100)
        kept = {Column("raw", name, column) for name in frames for column in frames[name].columns} & columns
        scrambled = {
            name: other[name].with_columns(rows[column.name] for column in kept if column.table == name)
            for name, rows in frames.items()
        }
        assert_frame_equal(values_at(view, scrambled, points).select(feature), before.select(feature))
