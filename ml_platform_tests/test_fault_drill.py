"""The drill of faults: what it says of what it found, and (long) a small one on real flights."""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ml_platform import metrics
from ml_platform.drills import faults as command
from ml_platform.drills.clean_year import PROBABILITY, CleanYear, clean_year, refreshed, within
from ml_platform.drills.compared import Profiles
from ml_platform.drills.cost import Cost, cost
from ml_platform.drills.false_alarms import Alarm, Quiet
from ml_platform.drills.fault_drill import Catch, Told, drill
from ml_platform.drills.fault_page import sentences, table, write_page
from ml_platform.drills.fault_table import as_json, figures, lines
from ml_platform.drills.live_path import served_live
from ml_platform.drills.planting import Plant, admitted, unchecked
from ml_platform.drills.watch import CONTRACT, DRIFT, FRESHNESS, INGEST, PERFORMANCE, SKEW, compared, contract, skewed
from ml_platform.resources.projects import load_faults, load_project
from ml_platform.spec import BusinessMetric, DeclarationError, Fault, UnknownName
from ml_platform.spec.wrongs import scaled, value
from ml_platform.stores.delta import PARTITION
from ml_platform.training.training_set import LABEL

FLIGHTS = "ml_platform.projects.flights"
PROJECT, FAULTS = load_project(FLIGHTS), load_faults(FLIGHTS)
DAYS = (date(2013, 5, 1), date(2013, 6, 1))


def told(name: str, *catches: tuple[str, int], day: date = DAYS[0], auc: float | None = -0.01) -> Told:
    spent = Cost(questions=900, lost=0, changed=0.5, auc=auc, log_loss=0.002, business={"cost": 12.0})
    caught = tuple(Catch(detector=who, day=after, reason=f"{who} <says> so") for who, after in catches)
    plant = Plant(fault=FAULTS[name], first=day, seed=1)
    return Told(plant=plant, catches=caught, cost_of_day=spent, cost_of_week=spent)


FOUND = [
    told("unit_celsius", (CONTRACT, 0), (DRIFT, 0)),
    told("unit_celsius", (CONTRACT, 0), day=DAYS[1]),
    told("feed_unreadable", (INGEST, 0), (FRESHNESS, 0)),
    told("feed_unreadable", (PERFORMANCE, 4), day=DAYS[1], auc=None),
    told("served_single", (SKEW, 0)),
    told("airport_merged", (DRIFT, 2)),
    told("cancellations_lost"),
]
QUIET = Quiet(
    first=DAYS[0],
    last=DAYS[0] + timedelta(days=13),
    looks={CONTRACT: 98, DRIFT: 14, PERFORMANCE: 14},
    set_aside=1,
    alarms=(Alarm(detector=DRIFT, where="delay_inputs", day=DAYS[0], reason="hot"),),
)


def test_figures_count_what_was_seen_when_and_by_whom() -> None:
    found = figures(FOUND)
    assert (found.plants, found.unseen) == (7, (("cancellations_lost", "2013-05-01"),))
    assert (found.due_early, found.seen_early) == (4, 3)
    assert found.share_early == 0.75
    assert found.by_performance == (("feed_unreadable", "2013-06-01"),)
    assert (found.kinds, found.kinds_seen) == (5, 4)


def test_a_line_a_fault() -> None:
    celsius, unreadable, *_, lost = lines(FOUND)
    assert (celsius.on_day_one, celsius.missed, celsius.latest, celsius.first_by) == (2, 0, 0, {CONTRACT: 2})
    assert (unreadable.on_day_one, unreadable.latest) == (1, 4)
    assert unreadable.mean_cost("auc") == pytest.approx(-0.01), "a day of one class has no AUC"
    assert unreadable.mean_cost("cost") == 12
    assert (lost.missed, lost.latest, lost.first_by) == (1, None, {"nobody": 1})


def test_who_was_not_seen_is_told_as_such_everywhere(tmp_path: Path) -> None:
    words = "\n".join(sentences(FOUND, QUIET))
    assert "nobody saw cancellations_lost from 2013-05-01 on" in words
    assert "1 of them were first seen by performance, days late: feed_unreadable (2013-06-01)" in words
    assert "drift: 1 false alarms in 14 looks, 0.50 a week (delay_inputs 01 May)" in words
    assert "performance: late labels asked for another champion on 0 of 14 days" in words
    console = Console(width=200, record=True, file=(tmp_path / "table").open("w"))
    console.print(table(FOUND, ["cost"]))
    shown = console.export_text()
    row = next(line for line in shown.splitlines() if "cancellations_lost" in line)
    assert "nobody 1" in row
    assert "never" in row
    page = write_page(FOUND, QUIET, ["cost"], tmp_path / "page.html").read_text()
    assert "nobody saw it" in page
    assert "&lt;says&gt;" in page
    assert json.loads(json.dumps(as_json(FOUND, QUIET)))["figures"]["share_early"] == 0.75


def test_without_a_fault_to_tell_of_nothing_breaks(tmp_path: Path) -> None:
    assert figures([]).share_early == 1
    assert write_page([], None, [], tmp_path / "page.html").exists()


@given(count=st.integers(1, 40), seed=st.integers(0, 99), days=st.integers(40, 300))
def test_dates_are_spread_over_all_the_time(count: int, seed: int, days: int) -> None:
    last = DAYS[0] + timedelta(days=days - 1)
    found = command.dates(DAYS[0], last, count, seed)
    assert found == command.dates(DAYS[0], last, count, seed)
    assert found == sorted(found)
    assert len(set(found)) == count
    for number, day in enumerate(found):
        assert number * days // count <= (day - DAYS[0]).days <= (number + 1) * days // count


def test_only_faults_that_there_are() -> None:
    assert [fault.name for fault in command.chosen(FAULTS, ["unit_wind"])] == ["unit_wind"]
    assert len(command.chosen(FAULTS, [])) == len(FAULTS)
    with pytest.raises(UnknownName, match="unit_winds"):
        command.chosen(FAULTS, ["unit_winds"])


def test_only_services_that_there_are() -> None:
    assert command.answering(PROJECT, None) == command.answering(PROJECT, "delay") == "delay"
    with pytest.raises(UnknownName, match="nope"):
        command.answering(PROJECT, "nope")
    with pytest.raises(DeclarationError, match="has no service"):
        command.answering(replace(PROJECT, services={}), None)


METRIC = {"cost": BusinessMetric(
    value=pl.when(pl.col("probability") >= 0.5).then(1 - pl.col("label")).otherwise(3 * pl.col("label")),
    low=0, high=3, margin=0.1, description="",
)}  # fmt: skip


def answers(rows: Iterable[tuple[str, float | None, float]]) -> pl.DataFrame:
    schema = {"key": pl.String, LABEL: pl.Int8, PROBABILITY: pl.Float64}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def test_the_cost_of_wrong_answers() -> None:
    right = answers([("a", 1, 0.9), ("b", 0, 0.1), ("c", 1, 0.8), ("d", None, 0.5), ("e", 0, 0.2)])
    wrong = answers([("a", 1, 0.2), ("b", 0, 0.1), ("c", 1, 0.8), ("d", None, 0.9)])
    found = cost("key", right, wrong, METRIC)
    assert found is not None
    assert (found.questions, found.lost, found.changed) == (5, 1, pytest.approx(1 / 3))
    assert found.business == {"cost": 3.0}, "one delay nobody was warned of"
    truth = np.array([1, 0, 1])
    before, after = np.array([0.9, 0.1, 0.8]), np.array([0.2, 0.1, 0.8])
    assert found.log_loss == pytest.approx(metrics.log_loss(truth, after) - metrics.log_loss(truth, before))
    assert found.auc == pytest.approx(0.0)


def test_a_cost_of_nothing_is_none() -> None:
    nothing = answers([])
    assert cost("key", nothing, nothing, METRIC) is None
    unknown = answers([("a", None, 0.5)])
    assert cost("key", unknown, unknown, METRIC) is None
    one_class = answers([("a", 1, 0.5)])
    found = cost("key", one_class, one_class, METRIC)
    assert found is not None
    assert (found.auc, found.log_loss) == (None, 0.0)


# Real flights of two months and a half


@pytest.fixture(scope="module")
def spring() -> CleanYear:
    """Real flights until the middle of May, served from 1 March on: as little as a drill can do with."""
    project = replace(PROJECT, serves_from=date(2013, 3, 1))
    return clean_year(
        project, project.services["delay"], until=date(2013, 4, 25), threads=1, track=lambda months: months
    )


NOTHING = Fault(
    kind="none",
    description="",
    caught="",
    table="weather",
    columns=("temp",),
    wrong=value("temp", pl.col("temp")),
    name="nothing",
)
FIRST = date(2013, 4, 5)


@pytest.mark.long
@pytest.mark.parametrize("name", ["weather", "flight_outcomes", "flight_schedules", "planes"])
def test_nothing_planted_is_nothing_changed(spring: CleanYear, name: str) -> None:
    """Tables and features with a fault that changes nothing are those of the clean days, to the bit."""
    column = {"planes": "seats", "weather": "temp"}.get(name, "tailnum")
    plant = Plant(fault=replace(NOTHING, table=name, wrong=value(column, pl.col(column))), first=FIRST, seed=1)
    declared, clean = spring.project.tables[name], spring.raw[name]
    key, columns = [*declared.key, "known_at"], list(declared.columns)
    frames = unchecked(plant, spring)
    assert frames[name].sort(key).select(columns).equals(clean.sort(key).select(columns))
    last = plant.last + timedelta(days=1)
    found = refreshed(spring, frames, name, FIRST, last)
    assert found.equals(spring.read(FIRST, last), null_equal=True)


@pytest.mark.long
def test_what_is_served_wrong_is_seen_and_a_clean_day_is_not(spring: CleanYear) -> None:
    profiles = Profiles(year=spring)
    skewed = drill(profiles, Plant(fault=FAULTS["served_single"], first=FIRST, seed=1))
    assert skewed.first is not None
    assert (skewed.first.detector, skewed.first.day) == (SKEW, 0)
    assert "carrier_arrivals__arr_delay_mean_7d" in skewed.first.reason
    quiet = drill(profiles, Plant(fault=NOTHING, first=FIRST, seed=1))
    assert quiet.catches == ()
    assert quiet.cost_of_week is not None
    assert (quiet.cost_of_week.changed, quiet.cost_of_week.auc, quiet.cost_of_week.business) == (0, 0, {"cost": 0})


@pytest.mark.long
def test_live_windows_that_were_told_everything_serve_what_is_recomputed(spring: CleanYear) -> None:
    rows = compared(spring, spring.read(FIRST, FIRST))
    frames = within(spring.project, spring.spec, spring.raw, FIRST, FIRST)
    assert 150 < rows.height < 350, "a quarter of the day's questions"
    told_all = replace(FAULTS["stream_lags"], wrong=lambda rows, planted: rows)
    found = skewed(spring, served_live(spring, Plant(fault=told_all, first=FIRST, seed=1), rows), frames)
    assert found.state == "pass", found.reason
    for name in ("stream_lags", "stream_loses_events"):
        found = skewed(spring, served_live(spring, Plant(fault=FAULTS[name], first=FIRST, seed=1), rows), frames)
        assert found.state == "fail"
        assert "origin_departures__dep_delay" in found.reason
    empty = served_live(spring, Plant(fault=FAULTS["stream_lags"], first=FIRST, seed=1), rows.clear())
    assert empty.is_empty()


@pytest.mark.long
def test_what_a_contract_refuses_never_reaches_the_features(spring: CleanYear) -> None:
    table = spring.project.tables["weather"]
    assert contract(spring, table, FIRST).verdict.passed
    plant = Plant(fault=FAULTS["unit_celsius"], first=FIRST, seed=1)
    found = drill(Profiles(year=spring), plant)
    assert [(catch.detector, catch.day) for catch in found.catches if catch.day == 0] == [(CONTRACT, 0)]
    assert admitted(plant, spring, {})["weather"].equals(spring.raw["weather"])
    assert found.cost_of_week is not None
    assert found.cost_of_week.changed > 0.5
    # What comes later than the day, or not at all.
    late = drill(Profiles(year=spring), Plant(fault=FAULTS["feed_unreadable"], first=FIRST, seed=1))
    assert [(catch.detector, catch.day) for catch in late.catches][:2] == [(INGEST, 0), (FRESHNESS, 0)]
    assert spring.raw["flight_departures"].filter(pl.col(PARTITION) == FIRST).height > 700


@pytest.mark.long
def test_the_command_ends_with_1_where_nobody_saw_a_fault(
    spring: CleanYear, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A fault of which nothing can be seen: a hair's breadth on a column that no model uses."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    unseen = replace(NOTHING, table="planes", columns=("engines",), wrong=scaled("engines", 1.0), name="unseen")
    monkeypatch.setattr(command, "load_faults", lambda _: {"unseen": unseen, "unit_wind": FAULTS["unit_wind"]})
    monkeypatch.setattr(command, "_year", lambda *_: spring)
    asked: list[Any] = ["--dates", "1", "--no-clean", "--quiet", "--json", str(tmp_path / "told.json")]
    found = CliRunner().invoke(command.faults, asked)
    assert found.exit_code == 1, found.output
    assert "nobody saw unseen" in found.output
    assert json.loads((tmp_path / "told.json").read_text())["figures"]["plants"] == 2
    assert (tmp_path / "home" / "reports" / "drill-faults.html").exists()
    seen = CliRunner().invoke(command.faults, [*asked, "--only", "unit_wind"])
    assert seen.exit_code == 0, seen.output
