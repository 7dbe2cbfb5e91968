"""Expectations beyond Great Expectations' vocabulary, against plain Python; declarations that cannot be."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.sources.contract import apply_contract, conditions, judge
from ml_platform.sources.ingest import fetch, ingest
from ml_platform.sources.observe import observe
from ml_platform.spec import DeclarationError, UnknownName
from ml_platform.spec import expectations as gxe
from ml_platform.spec.expectations.base import PART
from ml_platform.stores.delta import Lake
from ml_platform_tests.shop_world import D1, D2, NY, SHOPS, UTC_TIME, at, sales, table

_values = st.sampled_from([1.0, 1.0, 2.0, 2.5, float("nan"), None])
_rows = st.lists(st.tuples(st.sampled_from("ab"), _values), max_size=30)
SCHEMA = {"group": pl.String, "value": pl.Float64}


def _frame(cells: list[tuple[str, float | None]]) -> pl.DataFrame:
    return pl.DataFrame(cells, schema=SCHEMA, orient="row")


def _failing(rule: gxe.Expectation, rows: pl.DataFrame, **around: Any) -> list[int]:
    found = observe([rule], rows, gxe.Around(**around))[rule.name]
    assert found.unexpected is not None
    return found.unexpected.arg_true().to_list()


def _missing(value: float | None) -> bool:
    return value is None or value != value


@given(_rows, st.integers(1, 4), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_a_run_is_too_long_from_its_first_row_too_many_on(cells: Any, longest: int, cut: int) -> None:
    last: dict[str, float] = {}
    length: dict[str, int] = {}
    expected = []
    for place, (group, value) in enumerate(cells):
        if _missing(value):
            continue
        length[group] = length[group] + 1 if last.get(group) == value else 1
        last[group] = value
        if length[group] > longest:
            expected.append(place)
    rule = gxe.ExpectColumnValueRunsToBeAtMost(column="value", longest=longest, by=("group",))
    assert _failing(rule, _frame(cells)) == expected
    # Looked at in two pieces, the second after the first, nothing changes.
    cut = min(cut, len(cells))
    late = _failing(rule, _frame(cells[cut:]), before=_frame(cells[:cut]))
    assert [place + cut for place in late] == [place for place in expected if place >= cut]


@given(_rows)
@settings(max_examples=60, deadline=None)
def test_steps_and_constants_within_a_group(cells: Any) -> None:
    before: dict[str, float | None] = {}
    first: dict[str, float] = {}
    jumps, changes = [], []
    for place, (group, value) in enumerate(cells):
        known = before.get(group)
        if not _missing(value) and not _missing(known) and abs(value - known) > 1:
            jumps.append(place)
        before[group] = value
        if not _missing(value) and abs(value - first.setdefault(group, value)) > 0.5 * first[group]:
            changes.append(place)
    rows = _frame(cells)
    step = gxe.ExpectColumnValueStepsToBeAtMost(column="value", largest=1, by=("group",))
    constant = gxe.ExpectColumnValuesToBeConstantWithin(column="value", by=("group",), tolerance=0.5)
    assert (_failing(step, rows), _failing(constant, rows)) == (jumps, changes)


def test_a_step_over_a_gap_in_time_is_none() -> None:
    rows = pl.DataFrame({"value": [1, 9, 1], "at": [at(D1, 0), at(D1, 1), at(D1, 5)]})
    rule = gxe.ExpectColumnValueStepsToBeAtMost(column="value", largest=5, time="at", within=timedelta(hours=1))
    assert _failing(rule, rows) == [1]


def test_what_is_no_number_is_missing_but_not_finite() -> None:
    rows = pl.DataFrame({"value": [1.0, float("nan"), float("inf"), None]})
    assert _failing(gxe.ExpectColumnValuesToBeFinite(column="value"), rows) == [1, 2]
    assert _failing(gxe.ExpectColumnValuesToNotBeNull(column="value"), rows) == [1, 3]
    assert _failing(gxe.ExpectColumnValuesToBeBetween(column="value", max_value=2), rows) == [2]


# Days: as many rows as usual, and fresh.


def _days(counts: dict[date, int], shop: str = "north") -> pl.DataFrame:
    parts = [sales(day, count).with_columns(shop=pl.lit(shop)) for day, count in counts.items() if count]
    local = pl.col("known_at").dt.convert_time_zone(NY).dt.date()
    return pl.concat(parts).with_columns(local.alias(PART))


def _of_days(rule: gxe.Expectation, rows: pl.DataFrame, before: pl.DataFrame | None = None) -> dict[date, bool]:
    days = rows[PART].unique().sort().to_list()
    ends = {day: at(day + timedelta(days=1), 0) for day in days}
    known = None if before is None else before.with_columns(pl.lit(1).alias("nr"))
    found = observe([rule], rows.drop(PART), gxe.Around(before=known, ends=ends), parts=_local())[rule.name]
    return {day: seen.success for day, seen in (found.observed or {}).items()}


def _local() -> pl.Expr:
    return pl.col("known_at").dt.convert_time_zone(NY).dt.date()


def test_as_many_rows_as_on_the_same_weekdays_before() -> None:
    rule = gxe.ExpectTableRowCountToBeUsual(min_ratio=0.5, max_ratio=1.5)
    weeks = [D1 + timedelta(weeks=n) for n in range(5)]
    counts = dict(zip(weeks, [20, 22, 30, 50, 9], strict=True))
    # Too little history first; then 30 instead of 21, 50 instead of 22, 9 instead of 26.
    assert _of_days(rule, _days(counts)) == {weeks[2]: True, weeks[3]: False, weeks[4]: False}
    split = _days({day: counts[day] for day in weeks[:3]}), _days({day: counts[day] for day in weeks[3:]})
    assert _of_days(rule, split[1], split[0]) == {weeks[3]: False, weeks[4]: False}


def test_a_group_that_stays_away_is_not_usual_and_not_fresh() -> None:
    weeks = [D1 + timedelta(weeks=n) for n in range(3)]
    north = _days(dict.fromkeys(weeks, 24))
    south = _days(dict.fromkeys(weeks[:2], 24), "south")
    before, last = pl.concat([north.filter(pl.col(PART) < weeks[2]), south]), north.filter(pl.col(PART) == weeks[2])
    usual = gxe.ExpectTableRowCountToBeUsual(by=("shop",), min_ratio=0.5, max_ratio=1.5)
    fresh = gxe.ExpectTableToBeFresh(by=("shop",), within=timedelta(hours=3))
    assert _of_days(usual, last, before) == {weeks[2]: False}
    assert _of_days(fresh, last, before.filter(pl.col("shop") == "north")) == {weeks[2]: True}
    assert _of_days(fresh, last, before) == {weeks[2]: False}


def test_a_feed_that_stops_at_noon_is_not_fresh_at_night(tmp_path: Any) -> None:
    rule = gxe.ExpectTableToBeFresh(within=timedelta(hours=6))
    source = table(sales(D1, 24).filter(pl.col("known_at") < at(D1, 12)), rules=(rule,))
    lake = Lake(str(tmp_path))
    during = ingest(source, lake, D1, D1, at(D1, 20), NY)
    assert during.contract.state == "pass"  # the day is not over
    after = ingest(source, lake, D1, D1, at(D2, 1), NY)
    assert after.contract.state == "warn"  # what fails is the check of columns: all of them wait
    assert [refusal.column for refusal in after.refused] == ["*"]
    assert "raw/sales of 2024-03-09: breaks fresh" in after.refused[0].sentence
    assert after.contract.reason == "all others of its rules hold on 13 rows; refused, see the check of columns: *"
    assert after.good.height == during.good.height > 0  # held back, not refused
    row_by_row = fetch(source, D1, D1, at(D2, 1), NY, {})
    assert row_by_row.contract.state == "pass"  # parts of a day are not judged as a day


def test_a_rule_holds_back_warns_or_informs() -> None:
    bad = sales(D1, 10).with_columns(value=pl.lit(99, pl.Int64))
    rule = gxe.ExpectColumnMeanToBeBetween(column="value", max_value=9)
    states = {}
    for severity in ("critical", "warning", "info"):
        found = apply_contract(table(bad, rules=(replace(rule, severity=severity, action=None),)), bad, {})
        states[severity] = (
            found.verdicts[rule.name].state,
            found.good.height,
            found.verdicts[rule.name].measures["broken"],
        )
    assert states == {"critical": ("fail", 10, 1), "warning": ("warn", 10, 1), "info": ("pass", 10, 1)}
    verdict = apply_contract(table(bad, rules=(rule,)), bad, {}).verdicts[rule.name]
    assert (
        verdict.reason == "raw/sales breaks value_mean_between_none_and_9, which holds back what uses value; found 99.0"
    )


def test_mostly_is_judged_day_by_day_and_sets_nothing_aside_unless_it_is_exceeded() -> None:
    rule = gxe.ExpectColumnValuesToBeInSet(column="colour", value_set=("red",), mostly=0.9, action="quarantine")
    some = sales(D1, 20).with_columns(colour=pl.when(pl.col("id") == "s09-003").then(pl.lit("x")).otherwise("colour"))
    source = table(some, rules=(rule,), max_quarantined=1.0)
    assert apply_contract(source, some, {}).quarantined.is_empty()
    half = sales(D2, 20).with_columns(colour=pl.when(pl.col("value") > 4).then(pl.lit("x")).otherwise("colour"))
    both = pl.concat([sales(D1, 400), half])
    whole = judge(source, both, {}, batch=_local(), around=gxe.Around(ends={D1: at(D2, 0)}))
    assert whole.quarantined.height == 10  # a bad day cannot hide among good ones


def test_events_are_judged_by_rules_that_one_row_decides_and_that_keep_rows_out() -> None:
    kept = gxe.ExpectColumnValuesToBeBetween(column="value", max_value=9)
    others = (
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        gxe.ExpectColumnMeanToBeBetween(column="value", max_value=9),
        replace(kept, name="softly", action="warn"),
        replace(kept, name="mostly", mostly=0.5, action=None),
    )
    assert list(conditions(table(sales(D1, 3), rules=(kept, *others)), {})) == [kept.name]
    assert [each.action for each in others] == ["hold", "hold", "warn", "hold"]


# Bad input: an empty batch, a constant column, one row, all null.


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_no_rows_one_row_and_rows_without_values_give_an_answer(rows: int) -> None:
    empty = pl.DataFrame(
        {"value": pl.Series([None] * rows, dtype=pl.Float64), "group": pl.Series(["a"] * rows, dtype=pl.String)}
    )
    rules = [
        gxe.ExpectColumnMeanToBeBetween(column="value", max_value=9),
        gxe.ExpectColumnStdevToBeBetween(column="value", max_value=9),
        gxe.ExpectColumnQuantileValuesToBeBetween(
            column="value", quantile_ranges={"quantiles": [0.5], "value_ranges": [[None, None]]}
        ),
        gxe.ExpectColumnMostCommonValueToBeInSet(column="value", value_set=(1,)),
        gxe.ExpectColumnValueZScoresToBeLessThan(column="value", threshold=1, double_sided=True),
        gxe.ExpectColumnValuesToNotBeOutliers(column="value"),
        gxe.ExpectColumnValueRunsToBeAtMost(column="value", longest=1, by=("group",)),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
    ]
    found = {name: finding.success for name, finding in observe(rules, empty).items()}
    assert [found[rule.name] for rule in rules] == [False, False, False, False, True, True, True, rows > 0]


def test_an_empty_reference_table_is_refused_not_passed() -> None:
    shops = table(
        SHOPS.clear(),
        name="shops",
        partitioned=False,
        columns={"shop": pl.String, "known_at": UTC_TIME},
        key=("shop",),
        rules=(gxe.ExpectTableRowCountToBeBetween(min_value=1, action="stop"),),
    )
    rows = pl.DataFrame(schema={"shop": pl.String, "known_at": UTC_TIME})
    found = judge(shops, rows, {}, around=gxe.Around())
    assert found.refusal == "raw/shops breaks row_count_between_1_and_none, which stops the table; found 0"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: gxe.ExpectColumnValuesToBeBetween(column="a"), "needs min_value or max_value"),
        (
            lambda: gxe.ExpectColumnValuesToBeBetween(column="a", min_value=2, max_value=1),
            "min_value is above max_value",
        ),
        (lambda: gxe.ExpectColumnValuesToNotBeNull(column="a", mostly=95), "mostly is a share"),
        (lambda: gxe.ExpectColumnValuesToMatchRegex(column="a", regex="("), "is no regular expression"),
        (
            lambda: gxe.ExpectColumnValuesToMatchStrftimeFormat(column="a", strftime_format="%Q%"),
            "no format of strptime",
        ),
        (
            lambda: gxe.ExpectColumnMeanToBeBetween(column="a", max_value=1, action="quarantine"),
            "no row can be set aside",
        ),
        (
            lambda: gxe.ExpectColumnMeanToBeBetween(column="a", max_value=1, severity="fatal"),
            "severity='fatal' is one of",
        ),
        (lambda: gxe.ExpectInvariantToHold(name="", holds=pl.col("a") > 1), "an invariant needs a name"),
        (lambda: gxe.ExpectInvariantToHold(name="n", holds=pl.all() > 1), "selects columns by type or pattern"),
        (lambda: gxe.Column("a") == None, "ask is_null"),  # noqa: E711
        (
            lambda: gxe.ExpectColumnPairValuesToBeEqual(column_A="a", column_B="b", ignore_row_if="x"),
            "ignore_row_if is one",
        ),
        (lambda: gxe.ExpectTableRowCountToBeUsual(min_ratio=2, max_ratio=3), "min_ratio is at most 1"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_declared(wrong: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        wrong()


def test_types_by_the_names_of_polars_numpy_and_python() -> None:
    rows = pl.DataFrame({"value": [1.5], "id": ["a"], "at": [datetime(2024, 1, 1, tzinfo=UTC)]})
    right = {"value": ["Float64", "float64", "float"], "id": ["String", "str"], "at": ["Datetime", "datetime64[ns]"]}
    for column, names in right.items():
        for name in names:
            rule = gxe.ExpectColumnValuesToBeOfType(column=column, type_=name)
            assert observe([rule], rows)[rule.name].success
    wrong = gxe.ExpectColumnValuesToBeInTypeList(column="id", type_list=("int64", "Boolean"))
    assert observe([wrong], rows)[wrong.name].success is False
    with pytest.raises(UnknownName, match="did you mean"):
        observe([gxe.ExpectColumnValuesToBeOfType(column="id", type_="Strng")], rows)


def test_sql_patterns_as_sqlite_reads_them() -> None:
    import sqlite3

    texts = ["abc", "a%c", "a_c", "", "ABC", "a\nc", "aXXc", "a.c"]
    base = sqlite3.connect(":memory:")
    base.execute("PRAGMA case_sensitive_like = ON")
    for pattern, escape in [("a%c", None), ("a_c", None), ("a\\%c", "\\"), ("%", None), ("", None), ("a.c", None)]:
        query = "SELECT ? LIKE ?" + (f" ESCAPE '{escape}'" if escape else "")
        wanted = [n for n, text in enumerate(texts) if not base.execute(query, (text, pattern)).fetchone()[0]]
        rule = gxe.ExpectColumnValuesToMatchLikePattern(column="id", like_pattern=pattern, escape=escape)
        assert _failing(rule, pl.DataFrame({"id": texts})) == wanted
