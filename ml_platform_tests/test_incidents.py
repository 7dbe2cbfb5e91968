"""Incidents of the shipped project's real lineage, from planted evidence in a real lake."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from ml_platform.monitoring.cause_graph import cause_graph
from ml_platform.monitoring.drift import COLUMNS
from ml_platform.monitoring.evidence import changed_code, missing_days, row_counts
from ml_platform.monitoring.incident_assets import incident_assets, told_of
from ml_platform.monitoring.incidents import days_to_look_at, look, table_name
from ml_platform.monitoring.profile_table import COLUMNS as PROFILE
from ml_platform.monitoring.profiling import keep_profiles
from ml_platform.resources.projects import load_project
from ml_platform.sources.columns import Refusal, write_marks
from ml_platform.spec import Project
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.spec.incidents import Incident, incidents_of
from ml_platform.spec.lineage import Column
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake

DAY = date(2013, 5, 14)
TEMP = "weather_now__temp_last_6h"
PRESSURE = "weather_now__pressure_last_6h"


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project("ml_platform.projects.flights")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def drift_rows(day: date, failing: Mapping[str, str], passing: tuple[str, ...] = ()) -> pl.DataFrame:
    """``failing``: feature -> of what."""
    told = {"usual_maximum": 0.1, "threshold": 0.15, "ks": 0.0, "psi": 0.0, "wasserstein": 0.0, "missing_share": 0.0}
    rows = [
        *({"feature": name, "of": of, "distance": 0.6, "verdict": "fail", **told} for name, of in failing.items()),
        *({"feature": name, "of": "values", "distance": 0.05, "verdict": "pass", **told} for name in passing),
    ]
    return pl.DataFrame(rows, schema=dict(COLUMNS)).with_columns(pl.lit(day).alias(PARTITION))


def profiles_of(day: date, moved: Mapping[str, str]) -> pl.DataFrame:
    """A day's profiles of a raw table; ``moved``: column -> of what."""
    chance = np.random.default_rng(day.toordinal())
    rows = pl.DataFrame({name: chance.normal(50, 5, 72) for name in ("temp", "dewp", "pressure")})
    far = [pl.col(name) + 60 for name, of in moved.items() if of == "values"]
    gone = [pl.lit(None, pl.Float64).alias(name) for name, of in moved.items() if of == "missing values"]
    return rows.with_columns(*far, *gone)


def plant(lake: Lake, day: date, served: Mapping[str, str], raw: Mapping[str, str] | None = None) -> None:
    """Verdicts of a day: what drifted of what was served, and of raw/weather; the others held."""
    lake.replace("drift/delay_inputs", drift_rows(day, served, tuple({TEMP, PRESSURE} - served.keys())), [day])
    if not lake.exists("profiles/raw/weather"):
        before = days_between(day - timedelta(days=30), day - timedelta(days=1))
        keep_profiles(lake, ("raw", "weather"), before, lambda one: profiles_of(one, {}))
    keep_profiles(lake, ("raw", "weather"), [day], lambda one: profiles_of(one, raw or {}))


def told(project: Project, lake: Lake, day: date) -> list[Incident]:
    found = look(project, project.services["delay"], lake, days_to_look_at(lake, "delay", day))
    kept = lake.read(table_name("delay"), first=day, last=day)
    assert incidents_of(kept.sort("id")) == found
    return found


def test_one_column_is_one_incident_with_all_that_drifted_after_it(project: Project, lake: Lake) -> None:
    for back in (3, 2, 1):
        plant(lake, DAY - timedelta(days=back), {})
        assert told(project, lake, DAY - timedelta(days=back)) == []
    plant(lake, DAY, {TEMP: "values"}, {"temp": "values"})
    (one,) = told(project, lake, DAY)
    assert (one.cause, one.kind, one.severity, one.opened_on) == ("raw/weather.temp", "drift", "page", DAY)
    assert one.symptoms == ("features/weather_now.temp_last_6h",)
    assert one.sentence.startswith(f"{DAY}: values of raw/weather.temp changed sharply (")
    assert one.sentence.endswith("). It touches features/weather_now.temp_last_6h. Look at raw/weather first.")
    plant(lake, DAY + timedelta(days=1), {TEMP: "values", PRESSURE: "values"}, {"temp": "values"})
    still, other = sorted(told(project, lake, DAY + timedelta(days=1)), key=lambda one: one.opened_on)
    assert (still.id, still.opened_on, still.last_seen) == (one.id, DAY, DAY + timedelta(days=1))
    assert (other.cause, other.kind) == ("features/weather_now", "unexplained")
    plant(lake, DAY + timedelta(days=2), {})
    ended = told(project, lake, DAY + timedelta(days=2))
    assert {one.closed_on for one in ended} == {DAY + timedelta(days=2)}
    assert told_of(ended).state == "pass"


def test_a_refused_column_is_named_before_the_drift_that_it_makes(project: Project, lake: Lake) -> None:
    table = project.tables["weather"]
    mark = {"day": DAY, "rule": "temp_between_-30_and_120", "rows": 72, "broken": 70}
    said = f"raw/weather.dewp and raw/weather.temp of {DAY}: 70 of 72 rows break dewp_not_above_temp"
    marks = [Refusal(column=name, sentence=said, **mark) for name in ("dewp", "temp")]  # type: ignore[arg-type]
    write_marks(lake, table, marks, [DAY])
    plant(lake, DAY, {TEMP: "missing values"}, {"temp": "missing values", "dewp": "missing values"})
    (one,) = told(project, lake, DAY)
    assert (one.cause, one.kind, one.severity) == ("raw/weather.dewp", "contract", "page")
    assert {"features/weather_now.temp_last_6h", "features/weather_now.dewp_last_6h"} <= set(one.symptoms)
    assert one.sentence.startswith(f"{said}, so it is refused. It touches features/weather_now.dewp_last_6h")

    plant(lake, DAY + timedelta(days=1), {})  # the next day is good, but nobody mended this one: features wait for it
    (still,) = told(project, lake, DAY + timedelta(days=1))
    assert (still.id, still.closed_on) == (one.id, None)
    write_marks(lake, table, [], [DAY])
    plant(lake, DAY + timedelta(days=2), {})
    (ended,) = told(project, lake, DAY + timedelta(days=2))
    assert (ended.id, ended.closed_on) == (one.id, DAY + timedelta(days=2))


def test_a_dropped_column_that_nobody_reads_can_wait(project: Project, lake: Lake) -> None:
    said = f"raw/planes.speed of {DAY}: speed is missing"
    mark = Refusal(column="speed", day=None, rule="schema", rows=3, broken=3, sentence=said)
    write_marks(lake, project.tables["planes"], [mark], None)
    plant(lake, DAY, {})
    (one,) = told(project, lake, DAY)
    assert (one.cause, one.kind, one.severity, one.symptoms) == ("raw/planes.speed", "schema", "warn", ())
    assert "It touches nothing that is served." in one.sentence
    assert told_of([one]).state == "warn"


def test_a_day_that_is_missing_is_an_incident_though_nothing_could_be_judged(project: Project, lake: Lake) -> None:
    days = days_between(DAY - timedelta(days=3), DAY - timedelta(days=1))
    rows = pl.DataFrame({"origin": ["JFK"] * 3, PARTITION: days})
    lake.replace("raw/weather", rows, days)
    (one,) = told(project, lake, DAY)
    assert (one.cause, one.kind, one.severity) == ("raw/weather", "feed", "page")
    assert "features/weather_now.temp_last_6h" in one.symptoms
    broken = pl.DataFrame({"origin": ["JFK"], "reason": ["known_one_hour_after, x"], PARTITION: [DAY]})
    lake.replace("quarantine/weather", broken, [DAY])
    (one,) = told(project, lake, DAY)  # looked at again on the same day
    assert one.kind == "contract"
    assert "was refused whole by its contract (known_one_hour_after, x)" in one.sentence
    for day in (DAY, DAY + timedelta(days=1)):
        lake.replace("raw/weather", rows.head(1).with_columns(pl.lit(day).alias(PARTITION)), [day])
    (ended,) = told(project, lake, DAY + timedelta(days=1))
    assert ended.closed_on == DAY + timedelta(days=1)


def test_another_model_version_explains_other_probabilities_and_nothing_else(project: Project, lake: Lake) -> None:
    for day, version in ((DAY - timedelta(days=1), 1), (DAY, 2)):
        answers = pl.DataFrame({"model_version": [version] * 3, PARTITION: [day] * 3})
        lake.replace("predictions/delay", answers, [day])
        plant(lake, day, {TEMP: "values"} if day == DAY else {})
        failing = {"probability": "values"} if day == DAY else {}
        lake.replace("drift/delay_answers", drift_rows(day, failing, () if failing else ("probability",)), [day])
        found = {one.cause: one for one in told(project, lake, day)}
    assert set(found) == {"models/delay_lightgbm", "features/weather_now"}
    assert found["models/delay_lightgbm"].kind == "code"
    assert "version 1 before, version 2 now" in found["models/delay_lightgbm"].sentence


def test_numbers_of_rows_far_from_usual(lake: Lake, project: Project) -> None:
    days = days_between(DAY - timedelta(days=20), DAY)
    counts = {day: 900 + day.day for day in days}
    assert row_counts("weather", counts, days)[0] == []
    for count in (500, 1500, 0):
        (found,), judged = row_counts("weather", {**counts, DAY: count}, [DAY])
        assert (found.kind, found.node, judged) == ("rows", Column("raw", "weather", ""), [(found.node, DAY)])
    assert row_counts("weather", {DAY: 5, DAY - timedelta(days=1): 900}, [DAY]) == ([], [])  # too little history
    rows = [{"column": "temp", "rows": {**counts, DAY: 100}[day], PARTITION: day} for day in days]
    profiles = pl.DataFrame(rows, schema={name: kind for name, kind in PROFILE.items() if name in rows[0]})
    lake.replace("profiles/raw/weather", profiles, days)
    lake.replace("drift/delay_inputs", drift_rows(DAY, {}, (TEMP,)), [DAY])
    (one,) = told(project, lake, DAY)
    assert (one.cause, one.kind, one.severity) == ("raw/weather", "rows", "warn")


@pytest.mark.parametrize("rows", [[], [("features", "v", "a", DAY)]])
def test_code_of_which_nothing_was_known_before_did_not_change(rows: list[Any]) -> None:
    schema = {"family": pl.String, "table": pl.String, "version": pl.String, PARTITION: pl.Date}
    findings, judged = changed_code(pl.DataFrame(rows, schema, orient="row"), [DAY])
    assert (findings, len(judged)) == ([], len(rows))


def test_days_before_a_table_began_are_not_missing() -> None:
    days = days_between(DAY - timedelta(days=3), DAY)
    assert list(missing_days("weather", [], {}, days)) == []
    assert [one.day for one in missing_days("weather", days[2:3], {}, days)] == [DAY]


def test_the_graph_holds_every_served_feature_down_to_raw_tables(project: Project) -> None:
    graph = cause_graph(project, project.services["delay"])
    spec = project.models["delay_lightgbm"]
    features = {Column("features", view.name, name) for view in project.views_of(spec) for name in view.schema()}
    assert features <= graph.parents.keys()
    for feature in features:
        seen, waiting = set[Column](), [feature]
        while waiting:
            new = set(graph.parents.get(waiting.pop(), ())) - seen
            seen |= new
            waiting += new
        assert any(node.family == "raw" and not node.name for node in seen), feature
    assert graph.looks_back[Column("features", "route_arrivals", "arr_delay_mean_14d")] == 14


def test_the_asset_names_the_guilty_one_on_its_page_and_in_its_check(
    project: Project, lake: Lake, tmp_path: Path
) -> None:
    plant(lake, DAY, {TEMP: "values"}, {"temp": "values"})
    clock = Clock(tmp_path / "clock.json")
    clock.set(day_start(DAY + timedelta(days=1), project.timezone))
    (asset,) = incident_assets(project)
    result = dg.materialize([asset], resources={"lake": lake, "clock": clock})
    (made,) = result.asset_materializations_for_node("incidents__delay")
    assert made.metadata["guilty: raw/weather.temp"].value == dg.AssetKey(["raw", "weather"])
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"raw/weather.temp: {DAY}: values of raw/weather.temp changed sharply" in str(check.description)
    spec = next(iter(asset.specs))
    assert spec.metadata["fresh_within_hours"] == 26
