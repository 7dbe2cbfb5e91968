"""Profiles at rest equal counting anew whatever is repeated, and drift is judged by what was known on the day."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.monitoring.drift_record import models_behind, note
from ml_platform.monitoring.profile import profile
from ml_platform.monitoring.profile_table import COLUMNS, histories, newest_layouts, to_rows
from ml_platform.monitoring.profiling import keep_profiles
from ml_platform.monitoring.together import how_far, views_of
from ml_platform.monitoring.uncovered import ask, look, uncovered
from ml_platform.monitoring.watched import judge_days, read_profiles, source_of
from ml_platform.resources.projects import load_project
from ml_platform.spec import DriftPolicy, JointRule, Seasons, Verdict
from ml_platform.spec.calendar import days_between
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import DRIFT, REVIEW
from ml_platform.stores.prediction_log import PREDICTION_COLUMNS

FIRST = date(2024, 1, 1)
NOW = datetime(2024, 3, 20, tzinfo=UTC)
ASSET = ("raw", "asked")


def rows_of(day: date, rows: int = 60, at: float = 0.0) -> pl.DataFrame:
    chance = np.random.default_rng(day.toordinal())
    line = ["AB"[n] for n in chance.integers(0, 2, rows)]
    return pl.DataFrame({"miles": chance.normal(at, 1, rows), "line": line})


def kept(lake: Lake, days: list[date], **changes: float) -> pl.DataFrame:
    return keep_profiles(lake, ASSET, days, lambda day: rows_of(day, **changes)).rows


def stored(lake: Lake) -> pl.DataFrame:
    return lake.read("profiles/raw/asked").sort(PARTITION, "column")


def test_days_one_by_one_a_range_and_a_repetition_leave_what_counting_all_leaves(tmp_path: Path) -> None:
    lake, days = Lake(str(tmp_path)), days_between(FIRST, FIRST + timedelta(days=39))
    for day in days[:20]:
        kept(lake, [day])
    kept(lake, days[20:])
    before = stored(lake)
    kept(lake, [days[7]])  # again, as after a kill
    kept(lake, days[3:9])
    assert stored(lake).equals(before)
    layouts = newest_layouts(before)
    anew = pl.concat(to_rows(profile(rows_of(day), layouts), day) for day in days)
    assert before.equals(anew.sort(PARTITION, "column"))
    assert set(before["version"]) == {6}  # learned on days 1, 2, 4, 8 and 16, and when the range doubled them
    whole = profile(pl.concat(map(rows_of, days)), layouts)
    assert [history.total().counts.tolist() for history in histories(before).values()] == [
        one.counts.tolist() for one in sorted(whole, key=lambda one: one.column)
    ]


def test_bins_are_learned_anew_when_the_range_of_values_changes_for_good(tmp_path: Path) -> None:
    lake, days = Lake(str(tmp_path)), days_between(FIRST, FIRST + timedelta(days=99))
    kept(lake, days[:64])
    assert set(stored(lake)["version"]) == {1}
    reasons = [
        keep_profiles(lake, ASSET, [day], lambda day: rows_of(day, at=30.0 if day >= days[64] else 0.0)).relearned
        for day in days[64:]
    ]
    (told,) = [reason for reason in reasons if reason]
    assert told == "values crowd in few bins of miles"
    assert set(stored(lake)["version"]) == {2}
    assert stored(lake)[PARTITION].n_unique() == 100


def test_an_empty_day_is_known_to_be_empty_and_one_without_columns_is_not_there(tmp_path: Path) -> None:
    lake, days = Lake(str(tmp_path)), days_between(FIRST, FIRST + timedelta(days=3))
    assert kept(lake, days[:1], rows=0).is_empty()
    kept(lake, days[1:3])
    empty = kept(lake, days[3:], rows=0)
    assert empty.select("column", "rows").rows() == [("miles", 0), ("line", 0)]
    nothing = keep_profiles(lake, ASSET, days[3:], lambda _: pl.DataFrame())
    assert nothing.rows.is_empty()


def test_a_column_that_comes_later_is_counted_from_then_on(tmp_path: Path) -> None:
    lake, days = Lake(str(tmp_path)), days_between(FIRST, FIRST + timedelta(days=12))
    kept(lake, days[:11])
    found = keep_profiles(lake, ASSET, [days[11]], lambda day: rows_of(day).with_columns(fare=pl.lit(2.5)))
    assert found.rows["column"].to_list() == ["miles", "line", "fare"]
    kept(lake, [days[12]])
    assert histories(stored(lake))["fare"].days.tolist() == [days[11]]
    assert len(histories(stored(lake))["miles"].days) == 13


def test_bins_of_a_table_that_cannot_be_read_back_are_learned_once(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for day in days_between(FIRST, FIRST + timedelta(days=5)):
        keep_profiles(lake, ASSET, [day], lambda day: rows_of(day), relearning=False)
    assert set(stored(lake)["version"]) == {1}


# Judging


def policy_of(**changes: object) -> DriftPolicy:
    told = {"service": "desk", "min_rows": 20, "seasons": Seasons(recent_days=28, min_days=7)} | changes
    return DriftPolicy(**told)  # type: ignore[arg-type]


def test_a_policy_reads_the_profiles_of_what_it_watches() -> None:
    assert source_of(policy_of()) == ("predictions", "desk")
    assert source_of(policy_of(of="predictions")) == ("predictions", "desk")
    assert source_of(policy_of(of="labels")) == ("labels", "desk")
    assert source_of(policy_of(service="", table="asked")) == ("raw", "asked")


def test_profiles_are_read_of_the_weeks_before_and_of_the_season_a_year_ago(tmp_path: Path) -> None:
    lake, days = Lake(str(tmp_path)), days_between(FIRST, FIRST + timedelta(days=440))
    kept(lake, days)
    day = days[430]
    found = set(read_profiles(lake, ASSET, day, Seasons(recent_days=28, around_days=7))[PARTITION])
    before = days_between(day - timedelta(days=28), day)
    year = days_between(day - timedelta(days=364 + 7), day - timedelta(days=364 - 7))
    assert found == {*before, *year}
    wide = read_profiles(lake, ASSET, day, Seasons(recent_days=400, around_days=7))
    assert wide.height == 2 * 401  # what both ask for is read once
    assert read_profiles(lake, ("raw", "nothing"), day, Seasons()).schema == pl.Schema(COLUMNS)


def test_a_range_is_judged_as_its_days_one_by_one(tmp_path: Path) -> None:
    lake, days = Lake(str(tmp_path)), days_between(FIRST, FIRST + timedelta(days=20))
    broken = days[15]
    keep_profiles(lake, ASSET, days, lambda day: rows_of(day, at=9.0 if day == broken else 0.0))
    policy = policy_of(service="", table="asked")
    at_once = judge_days(lake, policy, days, "drift/all")
    for day in days:
        (one,) = judge_days(lake, policy, [day], "drift/each")
        lake.replace("drift/each", one.rows, [day])
    assert [one.verdict.state for one in at_once] == ["unknown"] * 7 + ["pass"] * 8 + ["fail"] + ["pass"] * 5
    together = pl.concat(one.rows for one in at_once)
    assert_frame_equal(lake.read("drift/each"), together, check_row_order=False)


def served(day: date, wrong: bool, rows: int = 200) -> pl.DataFrame:
    """Features of two views that go together, unless they were joined wrongly."""
    chance = np.random.default_rng([int(wrong), day.toordinal()])
    level = chance.normal(size=rows)
    other = chance.permutation(level) if wrong else level
    names = [f"{view}__{n}" for view in ("one", "two") for n in range(3)]
    values = np.column_stack([part + chance.normal(size=rows) / 5 for part in (level, other) for _ in range(3)])
    told = [
        {"prediction_id": f"{day}-{n}", "asked_at": NOW, "probability": 0.5, "feature_names": names,
         "features": values[n].tolist()}
        for n in range(rows)
    ]  # fmt: skip
    return pl.DataFrame(told, schema=PREDICTION_COLUMNS).with_columns(pl.lit(day).alias(PARTITION))


def test_rows_joined_wrongly_are_far_from_their_reference_though_no_column_moved(tmp_path: Path) -> None:
    lake, days = Lake(str(tmp_path)), days_between(FIRST, FIRST + timedelta(days=9))
    rule = JointRule(rows=200, min_rows=50)
    lake.replace("predictions/desk", pl.concat(served(day, wrong=False) for day in days), days)
    right = how_far(lake, "desk", days[-1], days[:-1], rule, "all")
    lake.replace("predictions/desk", served(days[-1], wrong=True), days[-1:])
    wrong = how_far(lake, "desk", days[-1], days[:-1], rule, "all")
    assert right.keys() == wrong.keys() == {"one", "two"}
    assert max(right.values()) < 0.3 < 0.5 < min(wrong.values())
    assert how_far(lake, "desk", days[-1], [], rule, "all") == {}
    assert how_far(lake, "desk", days[-1] + timedelta(days=1), days, rule, "all") == {}
    assert views_of(["a__x", "b__y", "a__z", "c"]) == {"a": [0, 2], "b": [1], "c": [3]}


# What no policy covers


@pytest.fixture
def moved_raw(tmp_path: Path) -> Lake:
    """A month of trips' raw tables, of which the last day's miles are in another unit."""
    lake, project = Lake(str(tmp_path / "lake")), load_project("ml_platform_tests.trips")
    days = days_between(FIRST, FIRST + timedelta(days=30))
    for table in project.tables.values():
        keep_profiles(lake, ("raw", table.name), days, lambda day: _raw(project.tables["asked"].columns, day, days[-1]))
    return lake


def _raw(columns: object, day: date, last: date) -> pl.DataFrame:
    chance = np.random.default_rng(day.toordinal())
    factor = 160.0 if day == last else 1.0
    return pl.DataFrame({"trip": [f"{day}-{n}" for n in range(150)], "miles": chance.uniform(1, 9, 150) * factor})


def test_a_column_that_no_policy_covers_opens_one_review_an_incident(moved_raw: Lake, tmp_path: Path) -> None:
    project, ledger = load_project("ml_platform_tests.trips"), Ledger(tmp_path / "ledger.db")
    last = FIRST + timedelta(days=30)
    assert "miles" in uncovered(project, project.tables["asked"])
    rows, moved = look(project, moved_raw, [last - timedelta(days=1), last])
    assert {(one.column, one.day) for one in moved} >= {("raw/asked.miles", last)}
    assert set(rows["table"]) <= {"", *project.tables}
    (one,) = [one for one in moved if one.column == "raw/asked.miles"]
    assert "no drift policy covers it" in one.reason
    assert one.models == ("late",)
    assert models_behind(project, "raw/asked.miles") == ("late",)
    first = ask(ledger, [one], NOW)
    again = ask(ledger, [one], NOW + timedelta(hours=1))
    assert [line.kind for line in first] == [REVIEW]
    assert [line.number for line in again] == [line.number for line in first]
    assert [line.key for line in ledger.entries(DRIFT, "raw/asked.miles")] == [str(last)]


def test_a_failed_verdict_opens_a_review_unless_a_policy_says_what_follows(tmp_path: Path) -> None:
    project, ledger = load_project("ml_platform_tests.trips"), Ledger(tmp_path / "ledger.db")
    found = Verdict(state="fail", reason="miles moved")
    assert note(ledger, project, "inputs", FIRST, NOW, Verdict.unknown("too few")) is None
    for day in (0, 1, 2):
        note(ledger, project, "inputs", FIRST + timedelta(days=day), NOW, found)
    assert len(ledger.entries(DRIFT, "inputs")) == 3
    assert [line.key for line in ledger.entries(REVIEW, "late")] == [f"drift/inputs from {FIRST}"]
