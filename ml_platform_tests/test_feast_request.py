"""Request views as Feast's on-demand views: Feast's own client computes the platform's values, online and offline."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from ml_platform.features.feast_objects import feast_objects
from ml_platform.features.refresh import dated
from ml_platform.features.request_values import RequestPlan
from ml_platform.resources.projects import load_project
from ml_platform.spec import Computed, FeatureView, Project, RequestView
from ml_platform.stores.delta import Lake
from ml_platform.stores.online import OnlineStore

NOON = datetime(2024, 3, 10, 16, tzinfo=UTC)
STORE = """
project: trips
provider: local
registry: {folder}/feast_registry.db
online_store: {{type: sqlite, path: {folder}/feast_online.db}}
offline_store: {{type: ml_platform.features.feast_offline.DeltaOfflineStore}}
entity_key_serialization_version: 3
"""
BEFORE = RequestView(
    name="before",
    entities=load_project("ml_platform_tests.trips").views["line_past"].entities,
    request={"happens_at": "timestamp", "riders": "float64", "rush": "bool", "seats": "int64"},
    description="Of two views that call their features alike.",
    features=(
        Computed("slower", pl.col("line_past__minutes_late_mean_6h") - pl.col("again__minutes_late_mean_6h")),
        Computed("share", pl.col("line_past__minutes_late_count_6h") / pl.col("again__minutes_late_count_6h")),
        Computed("seats", pl.when(pl.col("rush")).then(pl.col("seats") * 2), "int64"),
        Computed("a_rider", pl.col("riders") / pl.col("seats")),
        Computed("hour", pl.col("happens_at").dt.convert_time_zone("America/New_York").dt.hour(), "int64"),
        Computed("notice", (pl.col("happens_at") - pl.col("asked_at")).dt.total_seconds(fractional=True)),
        Computed("line", pl.col("line").str.len_chars(), "int64"),
    ),
)
ROWS: list[dict[str, Any]] = [
    {"line": "A", "happens_at": NOON + timedelta(hours=1), "riders": 3.0, "rush": True, "seats": 4},
    {"line": "B", "happens_at": NOON - timedelta(hours=10), "riders": 0.1, "rush": False, "seats": 0},
    {"line": "none", "happens_at": NOON, "riders": 1.5, "rush": True, "seats": 7},
]
VALUES = {  # of the two views, by line: means and counts of six hours and of a day
    "line_past": {"A": (1.5, 2.5, 3, 9), "B": (0.3, None, 4, 5)},
    "again": {"A": (7.0, 0.0, 6, 6), "B": (None, 1.0, 0, 1)},
}


def project() -> Project:
    trips = load_project("ml_platform_tests.trips")
    past = trips.views["line_past"]
    views = {**trips.views, "again": replace(past, name="again")}
    model = replace(trips.models["late"], views=("planned", "line_past", "again", "before"))
    return replace(trips, views=views, request_views={"before": BEFORE}, models={"late": model})


def frame(view: FeatureView) -> pl.DataFrame:
    of_line = {line: dict(zip(view.schema(), values, strict=True)) for line, values in VALUES[view.name].items()}
    rows = [{"line": line, "as_of": NOON, **values} for line, values in of_line.items()]
    types = {name: pl.Int64 if kind == "int64" else pl.Float64 for name, kind in view.schema().items()}
    return pl.DataFrame(rows, {"line": pl.String, "as_of": pl.Datetime("us", "UTC"), **types})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from feast import FeatureStore

    folder = tmp_path_factory.mktemp("feast")
    declared = project()
    (folder / "feature_store.yaml").write_text(STORE.format(folder=folder))
    objects = feast_objects(declared, str(folder / "lake"))
    FeatureStore(str(folder)).apply(list(objects.values()))
    online, lake = OnlineStore(folder / "feast_online.db", "trips"), Lake(str(folder / "lake"))
    for name in VALUES:
        rows = frame(declared.views[name])
        online.publish(declared.views[name], rows, NOON)
        lake.replace(f"features/{name}", dated(rows, "America/New_York"), [NOON.date()])
    return FeatureStore(str(folder))  # opened anew: the functions come out of the registry


def expected() -> dict[str, list[Any]]:
    declared = project()
    looked_up = {
        f"{name}__{feature}": [VALUES[name].get(row["line"], (None,) * 4)[n] for row in ROWS]
        for name in VALUES
        for n, feature in enumerate(declared.views[name].schema())
    }
    plan = RequestPlan([*declared.views.values(), BEFORE])
    own = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    columns = {**looked_up, **own, "asked_at": [NOON] * len(ROWS)}
    values = plan.of_rows([{name: column[n] for name, column in columns.items()} for n in range(len(ROWS))])
    return {name: list(column) for name, column in zip(plan.names, zip(*values, strict=True), strict=True)}


def plain(values: list[Any]) -> list[Any]:
    return [None if value is None or pd.isna(value) else value for value in values]


FEATURES = [f"before:{name}" for name in BEFORE.schema()]


def test_online(store: Any) -> None:
    asked = [{**row, "asked_at": NOON} for row in ROWS]
    answer = store.get_online_features(features=FEATURES, entity_rows=asked, full_feature_names=True).to_dict()
    assert {name: plain(answer[name]) for name in expected()} == expected()
    assert expected()["before__slower"][0] == -5.5  # of two values that have one name
    assert expected()["before__seats"] == [8, None, 14]


def test_offline(store: Any) -> None:
    asked = pd.DataFrame([{**row, "asked_at": NOON, "event_timestamp": NOON} for row in ROWS])
    found = store.get_historical_features(asked, FEATURES, full_feature_names=True).to_arrow()
    assert {name: plain(found[name].to_pylist()) for name in expected()} == expected()


def test_the_models_feature_service_holds_it(store: Any) -> None:
    service = store.get_feature_service("late")
    assert [view.name for view in service.feature_view_projections] == ["planned", "line_past", "again", "before"]
    asked = [{**row, "asked_at": NOON, "trip": "t"} for row in ROWS]
    answer = store.get_online_features(features=service, entity_rows=asked, full_feature_names=True).to_dict()
    assert plain(answer["before__hour"]) == expected()["before__hour"]


def test_the_registry_shows_when_a_declaration_changed(store: Any, tmp_path: Path) -> None:
    def text(view: RequestView) -> str:
        changed = replace(project(), request_views={"before": view})
        found: str = feast_objects(changed, "lake")["view_before"].udf_string
        return found

    (first, *others) = BEFORE.features
    assert store.get_on_demand_feature_view("before").feature_transformation.udf_string == text(BEFORE)
    assert text(replace(BEFORE, features=(replace(first, value=first.value * 2), *others))) != text(BEFORE)
