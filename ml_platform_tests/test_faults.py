"""Faults that are planted: each does what it declares on real flights, and nothing else."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.drills.clean_year import feature_names
from ml_platform.drills.planting import Plant, source_with
from ml_platform.resources.projects import check_fault, load_faults, load_project
from ml_platform.spec import KNOWN_AT, DeclarationError, Fault, Planted, SourceError, SourceTable, UnknownName, wrongs
from ml_platform.spec.calendar import day_start

FLIGHTS = "ml_platform.projects.flights"
PROJECT, FAULTS = load_project(FLIGHTS), load_faults(FLIGHTS)
DAY = date(2013, 5, 10)
PLANTED = Planted(day=1, seed=7)
ZONE = PROJECT.timezone
# What scenario.md says such a platform must catch.
CLASSES = {
    "unit change", "stuck sensor", "stuck sensor at one origin", "feed stopped", "feed late", "code renamed",
    "rows duplicated", "sign flipped", "column dropped", "column retyped", "clock shifted forwards",
    "clock shifted backwards", "reference table empty", "served differently: a default",
    "served differently: a time zone", "wrong join", "null share rising", "one origin lost", "values truncated",
    "partial day", "late correction storm",
}  # fmt: skip


@cache
def rows_of(table: str) -> pl.DataFrame:
    """A day as the source gives it."""
    begins, ends = day_start(DAY, ZONE), day_start(DAY + timedelta(days=1), ZONE)
    declared = PROJECT.tables[table]
    return (
        declared.read(begins, ends)
        if declared.partitioned
        else declared.read(datetime.min.replace(tzinfo=begins.tzinfo), ends)
    )


@cache
def served() -> pl.DataFrame:
    """A stand-in for served features: nulls and numbers of a day's size."""
    names = feature_names(PROJECT, PROJECT.models["delay_lightgbm"])
    numbers = pl.int_range(900, eager=True)
    return pl.DataFrame({name: (numbers / 7).replace(1 / 7, None) for name in names})


def right(fault: Fault) -> pl.DataFrame:
    return rows_of(fault.table) if fault.table else served()


def test_every_class_of_the_scenario_is_planted() -> None:
    assert {fault.kind for fault in FAULTS.values()} >= CLASSES


@pytest.mark.parametrize("name", sorted(name for name, fault in FAULTS.items() if fault.wrong))
def test_a_fault_does_what_it_declares_and_only_that(name: str) -> None:
    fault = FAULTS[name]
    assert fault.wrong is not None
    before = right(fault)
    after = fault.wrong(before, PLANTED)
    assert not after.equals(before), "it changes nothing"
    assert after.equals(fault.wrong(before, PLANTED)), "it is not a function of the rows"
    assert before.equals(right(fault)), "it changes what it is given"
    if not fault.columns:  # whole rows come or go
        assert after.schema == before.schema
        assert after.height != before.height
        kept, whole = (after, before) if after.height < before.height else (before, after)
        assert kept.join(whole, on=kept.columns, how="anti", nulls_equal=True).is_empty()
        return
    assert after.height == before.height
    untouched = [column for column in before.columns if column not in fault.columns]
    assert after.select(untouched).equals(before.select(untouched))
    for column in fault.columns:
        same_all_day = before[column].n_unique() == 1  # a dry day's rain may stand anywhere
        changed = column not in after.columns or not after[column].equals(before[column], null_equal=True)
        assert changed or same_all_day, column


def test_a_fault_that_only_comes_late_or_not_at_all_says_so() -> None:
    others = {name: fault for name, fault in FAULTS.items() if not fault.wrong}
    assert others
    assert all((fault.late > timedelta(0)) != fault.unreadable for fault in others.values())


def test_a_wrong_join_leaves_what_every_column_holds() -> None:
    for name in ("wrong_join_weather", "wrong_join_aircraft"):
        fault = FAULTS[name]
        assert fault.wrong is not None
        before, after = right(fault), fault.wrong(right(fault), PLANTED)
        for column in fault.columns:
            assert after[column].sort().equals(before[column].sort(), null_equal=True)


def test_more_goes_missing_every_day() -> None:
    wrong = FAULTS["null_share_rising_pressure"].wrong
    assert wrong is not None
    rows = rows_of("weather")
    lost = [wrong(rows, Planted(day=day, seed=1))["pressure"].null_count() for day in range(5)]
    assert lost == sorted(lost)
    assert lost[0] < rows.height * 0.4
    assert lost[4] == rows.height


FRAMES = st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(-50, 50)), max_size=30).map(
    lambda rows: pl.DataFrame(
        {"key": [key for key, _ in rows], "value": [value for _, value in rows]},
        schema={"key": pl.String, "value": pl.Int64},
    ).with_columns(pl.int_range(pl.len()).alias("n"), pl.datetime(2024, 1, 1, time_zone="UTC").alias(KNOWN_AT))
)


@settings(max_examples=60, deadline=None)
@given(rows=FRAMES, seed=st.integers(0, 99), share=st.floats(0, 1))
def test_wrongs_against_plain_python(rows: pl.DataFrame, seed: int, share: float) -> None:
    planted = Planted(day=0, seed=seed)
    values = rows["value"].to_list()
    assert wrongs.scaled("value", -1)(rows, planted)["value"].to_list() == [v if v is None else -v for v in values]
    first = {
        key: next((v for k, v in zip(rows["key"], values, strict=True) if k == key and v is not None), None)
        for key in "ab"
    }
    stuck = wrongs.stuck("value", by="key")(rows, planted)
    assert stuck["value"].to_list() == [first[key] for key in rows["key"]]
    renamed = wrongs.renamed("key", "a", "c")(rows, planted)
    assert renamed["key"].to_list() == ["c" if key == "a" else key for key in rows["key"]]
    mixed = wrongs.permuted("value")(rows, planted)
    assert sorted(map(str, mixed["value"])) == sorted(map(str, values))
    lost = wrongs.missing("n", share=share)(rows, planted)
    assert lost["n"].null_count() == sum(place < share * rows.height for place in range(rows.height))
    assert wrongs.doubled()(rows, planted).height == 2 * rows.height
    for wrong in (mixed, lost, stuck, renamed):
        assert wrong.schema == rows.schema


# The source with a fault in it


def planted_read(fault: Fault, first: date, day: date, now: datetime | None = None) -> pl.DataFrame:
    begins, ends = day_start(day, ZONE), day_start(day + timedelta(days=1), ZONE)
    table = PROJECT.tables[fault.table]
    return source_with(Plant(fault=fault, first=first, seed=3), table, ZONE, now or ends).read(begins, ends)


def clean_read(table: SourceTable, day: date) -> pl.DataFrame:
    return table.read(day_start(day, ZONE), day_start(day + timedelta(days=1), ZONE))


@pytest.mark.parametrize("name", ["unit_celsius", "clock_backwards", "feed_late", "column_dropped", "feed_stopped"])
def test_days_before_and_after_a_fault_are_as_ever(name: str) -> None:
    fault = FAULTS[name]
    clean = PROJECT.tables[fault.table]
    for away in (-2, fault.days + 1):
        day = DAY + timedelta(days=away)
        # A day later, so that what comes late has come.
        found = planted_read(fault, DAY, day, day_start(day + timedelta(days=2), ZONE))
        assert found.sort(KNOWN_AT, *clean.key).equals(clean_read(clean, day).sort(KNOWN_AT, *clean.key))


def test_what_comes_late_is_not_there_when_the_day_is_closed() -> None:
    fault = FAULTS["feed_late"]
    closes = day_start(DAY + timedelta(days=1), ZONE)
    found = planted_read(fault, DAY, DAY, closes)
    whole = clean_read(PROJECT.tables[fault.table], DAY)
    assert found.height == whole.filter(pl.col(KNOWN_AT) + fault.late <= closes).height
    assert 0 < found.height < whole.height
    assert planted_read(fault, DAY, DAY, closes + fault.late).height == whole.height


def test_a_clock_that_runs_ahead_does_not_show_what_nobody_has_seen_yet() -> None:
    """Three hours early: when the day is closed, its last three hours are missing, and nothing of the next is there."""
    fault = FAULTS["clock_backwards"]
    found = planted_read(fault, DAY, DAY)
    ends = day_start(DAY + timedelta(days=1), ZONE)
    assert found[KNOWN_AT].max() < ends - timedelta(hours=3) + timedelta(minutes=1)  # type: ignore[operator]
    assert found[KNOWN_AT].min() >= day_start(DAY, ZONE)  # type: ignore[operator]


def test_a_source_that_cannot_be_read_says_so() -> None:
    with pytest.raises(SourceError, match="does not answer"):
        planted_read(FAULTS["feed_unreadable"], DAY, DAY)


# Declarations


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"table": "wheather"}, "no source table.*'wheather'"),
        ({"columns": ("temperature",)}, "no column of weather.*'temperature'"),
        ({"table": "", "columns": ("temp",)}, "no served feature.*'temp'"),
    ],
)
def test_a_fault_that_names_what_there_is_not_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UnknownName, match=told):
        check_fault(replace(FAULTS["unit_celsius"], **changes), PROJECT)


def test_a_fault_that_changes_nothing_is_refused() -> None:
    with pytest.raises(DeclarationError, match="unit_celsius changes nothing"):
        check_fault(replace(FAULTS["unit_celsius"], wrong=None), PROJECT)
