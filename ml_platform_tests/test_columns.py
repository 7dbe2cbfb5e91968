"""A refused column stops what reads it, for its day; the rest goes on, and once it is mended nothing is missing."""

import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ml_platform.automation.runs import abandon_runs
from ml_platform.sources.columns import marks_of, refuse_use
from ml_platform.sources.ingest import fetch, ingest, nothing_lost
from ml_platform.spec import ColumnRefused, ContractBroken, SchemaChanged
from ml_platform.spec import expectations as gxe
from ml_platform.spec.expectations import Action
from ml_platform.spec.lineage import Column
from ml_platform.stores.delta import Lake
from ml_platform_tests.columns_world import (
    BELOW_HEAT,
    BELOW_WIND,
    HEAT,
    HOT,
    RAW,
    WIND,
    D,
    World,
    opened,
)
from ml_platform_tests.shop_world import COLUMNS, D1, D2, LATER, NY, SHOPS, at, frame, sales, table

# Which columns are refused


_cells = st.tuples(
    st.sampled_from([-1, 4, 9, 90, None]),
    st.sampled_from(["red", "blue", "green", None]),
    st.integers(0, 1).map(lambda day: at((D1, D2)[day], 12)),
)


def _by_hand(rows: list[dict[str, Any]], stop_value: bool, most: float) -> set[tuple[str, date]]:
    """Plain Python, one day at a time: the rules of ``_rules`` that refuse columns."""
    found = set()
    for day in (D1, D2):
        own = [row for row in rows if row["known_at"] == at(day, 12)]
        allowed = max(most * len(own), 1.0)
        value = sum(row["value"] is not None and not 0 <= row["value"] <= 9 for row in own)
        colour = sum(row["colour"] not in ("red", "blue", None) for row in own)
        both = sum(row["colour"] == "blue" and row["value"] is not None and row["value"] >= 5 for row in own)
        alone = {("value", day)} if value > (0 if stop_value else allowed) else set()
        alone |= {("colour", day)} if colour > allowed else set()
        found |= alone
        if both > allowed and not alone:
            found |= {("value", day), ("colour", day)}
    return found


def _value(action: Action) -> gxe.ExpectColumnValuesToBeBetween:
    return gxe.ExpectColumnValuesToBeBetween(column="value", min_value=0, max_value=9, action=action)


def _rules(stop_value: bool) -> tuple[Any, ...]:
    return (
        gxe.ExpectInvariantToHold(name="blue_is_small", holds=(pl.col("colour") != "blue") | (pl.col("value") < 5)),
        _value("stop" if stop_value else "quarantine"),
        gxe.ExpectColumnValuesToBeInSet(column="colour", value_set=("red", "blue")),
    )


@given(st.lists(_cells, max_size=25), st.booleans(), st.sampled_from([0.1, 0.3, 0.6]))
@settings(max_examples=50, deadline=None)
def test_exactly_the_columns_that_a_rule_refuses_are_empty_on_exactly_their_days(
    cells: list[tuple[Any, ...]], stop_value: bool, most: float
) -> None:
    rows = frame(*((f"{n}", value, colour, "north", moment) for n, (value, colour, moment) in enumerate(cells)))
    source = table(rows, rules=_rules(stop_value), max_quarantined=most)
    batch = fetch(source, D1, D2, LATER, NY, {"shops": SHOPS}, whole=True)
    expected = _by_hand(rows.to_dicts(), stop_value, most)
    if batch.refusal is not None:  # rows that several rules set aside, each within its share, are too many together
        assert "more than the share" in batch.refusal
        return
    assert {(one.column, one.day) for one in batch.refused} == expected
    before = {row["id"]: row for row in rows.to_dicts()}
    for row in batch.good.to_dicts():
        for name in COLUMNS:
            gone = (name, row["known_date"]) in expected
            assert row[name] == (None if gone else before[row["id"]][name])
    assert batch.good.height + batch.quarantined.height == len(cells)


def test_a_rule_about_whole_rows_refuses_the_batch_whatever_its_columns_say(tmp_path: Path) -> None:
    late = gxe.ExpectInvariantToHold(name="known_by_ten", holds=pl.col("known_at").dt.hour() < 10, action="stop")
    source = table(sales(D1, 20).with_columns(pl.col("value") + 90), rules=(_value("stop"), late))
    lake = Lake(str(tmp_path))
    with pytest.raises(ContractBroken, match="known_by_ten, which stops the table"):
        ingest(source, lake, D1, D1, LATER, NY)
    assert not lake.exists("raw/sales")
    assert marks_of(lake, "sales", [D1]) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.rename({"colour": "color"}), r"colour is missing \(renamed to color\?\)"),
        (lambda rows: rows.with_columns(pl.col("value").cast(pl.Float64)), "value is Float64 instead of Int64"),
    ],
)
def test_a_dropped_or_retyped_column_is_refused_and_the_others_stand(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], said: str
) -> None:
    lake, source = Lake(str(tmp_path)), table(change(sales(D1, 20)))
    lake.replace("raw/shops", SHOPS, None)
    found = ingest(source, lake, D1, D1, LATER, NY)
    (mark,) = marks_of(lake, "sales", [D1])
    assert mark.column in said
    kept = lake.read("raw/sales")
    assert kept[mark.column].null_count() == 20
    assert kept.schema == {**COLUMNS, "known_date": pl.Date}
    assert_frame_equal(kept.select("id", "shop"), sales(D1, 20).select("id", "shop"))
    assert nothing_lost(source, lake, D1, D1, LATER, NY).state == "pass"
    daily = {"sales": True}
    with pytest.raises(ColumnRefused, match=rf"features/x of {D1} stands still.*{said}.*contract of raw/sales"):
        refuse_use(lake, f"features/x of {D1}", [Column("raw", "sales", mark.column)], [D1], daily)
    refuse_use(lake, "features/x", [Column("raw", "sales", "shop")], [D1], daily)
    refuse_use(lake, "features/x", [Column("raw", "sales", mark.column)], [D2], daily)
    assert found.contract.state == "warn"


def test_without_its_key_a_table_has_no_rows(tmp_path: Path) -> None:
    for rows in (sales(D1, 5).drop("known_at"), sales(D1, 5).drop("id")):
        source = replace(table(sales(D1, 5)), read=lambda start, end, rows=rows: rows)
        with pytest.raises(SchemaChanged, match=r"is missing\. Without it there are no rows, so nothing was written"):
            ingest(source, Lake(str(tmp_path)), D1, D1, LATER, NY, references={"shops": SHOPS})


def test_an_undeclared_column_is_left_out_and_said(tmp_path: Path) -> None:
    source = table(sales(D1, 5).with_columns(more=1))
    found = ingest(source, Lake(str(tmp_path)), D1, D1, LATER, NY, references={"shops": SHOPS})
    assert (found.refused, found.contract.state) == ((), "warn")
    assert "undeclared columns were left out: more" in found.contract.reason


@pytest.mark.parametrize("rows", [sales(D1, 5).clear(), sales(D1, 1).with_columns(pl.col("value") + 90)])
def test_no_row_and_one_row(tmp_path: Path, rows: pl.DataFrame) -> None:
    source = table(rows, rules=(_value("stop"),))
    found = ingest(source, Lake(str(tmp_path)), D1, D1, LATER, NY)
    assert [one.column for one in found.refused] == ["value"][: rows.height]
    assert found.good.height == rows.height
    if rows.is_empty():
        assert found.contract.state == "unknown"


def test_a_reference_table_is_refused_whole_and_mended(tmp_path: Path) -> None:
    lake, state = Lake(str(tmp_path)), {"rows": sales(D1, 5).with_columns(pl.col("value") + 90)}
    source = replace(table(lambda: state["rows"]), partitioned=False, rules=(_value("stop"),))
    ingest(source, lake, D1, D1, LATER, NY)
    with pytest.raises(ColumnRefused, match=r"raw/sales\.value: 5 of 5 rows break value_between_0_and_9"):
        refuse_use(lake, "features/x", [Column("raw", "sales", "value")], [], {"sales": False})
    state["rows"] = sales(D1, 5)
    ingest(source, lake, D1, D1, LATER, NY)
    refuse_use(lake, "features/x", [Column("raw", "sales", "value")], [], {"sales": False})
    assert lake.read("raw/sales").equals(sales(D1, 5))


def test_a_rule_about_the_whole_day_holds_its_columns_or_the_table(tmp_path: Path) -> None:
    lake, rows = Lake(str(tmp_path)), pl.concat([sales(D1, 20).with_columns(value=pl.lit(3, pl.Int64)), sales(D2, 20)])
    several = gxe.ExpectColumnUniqueValueCountToBeBetween(column="value", min_value=2)
    few = gxe.ExpectTableRowCountToBeBetween(min_value=25)
    found = ingest(table(rows, rules=(several,)), lake, D1, D2, LATER, NY)
    assert [(one.column, one.day) for one in found.refused] == [("value", D1)]
    assert lake.read("raw/sales", first=D1, last=D1)["value"].null_count() == 20
    assert lake.read("raw/sales", first=D2)["value"].null_count() == 0
    found = ingest(table(rows, rules=(few,)), lake, D1, D2, LATER, NY)
    assert [(one.column, one.day) for one in found.refused] == [("*", D1), ("*", D2)]
    assert lake.read("raw/sales")["value"].null_count() == 0  # nobody knows which rows are wrong: who reads them waits
    with pytest.raises(ColumnRefused, match=rf"raw/sales of {D2}: breaks row_count_between_25_and_none \(found 20\)"):
        refuse_use(lake, "features/x", [Column("raw", "sales", "shop")], [D2], {"sales": True})


def test_a_warning_refuses_nothing(tmp_path: Path) -> None:
    rules = (replace(_value("warn"), severity="warning"),)
    rows = sales(D1, 20).with_columns(pl.col("value") + 90)
    found = ingest(table(rows, rules=rules), Lake(str(tmp_path)), D1, D1, LATER, NY)
    assert (found.refused, found.good.height, found.contract.state) == ((), 20, "warn")


def test_live_events_are_judged_row_by_row() -> None:
    rows = sales(D1, 20).with_columns(value=pl.when(pl.col("id") == "s09-003").then(99).otherwise("value"))
    source = table(rows, rules=(_value("stop"),))
    live = fetch(source, D1, D1, LATER, NY, {})
    assert (live.refused, live.good.height, live.good["value"].null_count()) == ((), 19, 0)


# Under the driver of replayed ticks


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path) as world:
        yield world


def asked(result: Any) -> set[tuple[str, str | None]]:
    return {("/".join(key.path), day) for key, day in result.requested}


def test_what_reads_the_column_waits_the_rest_goes_on_and_after_the_mend_nothing_is_missing(world: World) -> None:
    world.midnight_after(D[0])
    world.source.spoiled[D[1]] = HOT
    result = world.midnight_after(D[1])
    failed = [failure for run in result.runs for failure in run.failures]
    assert [failure.step for failure in failed] == ["features__heat"]
    assert f"features/heat of {D[1]} stands still, since it reads what was refused: raw/reports.temp of {D[1]}: " in (
        failed[0].message
    )
    assert "rows break temp_between_-60_and_130" in failed[0].message
    for key in (RAW, WIND, BELOW_WIND):
        assert world.made(key) == {str(D[0]), str(D[1])}
    for key in (HEAT, BELOW_HEAT):
        assert world.made(key) == {str(D[0])}
    assert asked(world.midnight_after(D[1], hours=1)) == set()  # no second attempt on the same day

    result = world.midnight_after(D[2])  # the day after goes on with all; the refused one is tried again, in vain
    assert world.made(HEAT) == {str(D[0]), str(D[2])}
    assert ("raw/reports", str(D[1])) in asked(result)

    world.source.spoiled.clear()
    result = world.midnight_after(D[3])
    assert {("features/heat", str(D[1])), ("features/heat", str(D[2]))} <= asked(result)
    assert [run.failures for run in result.runs if not run.succeeded] == []
    for key in (RAW, HEAT, WIND, BELOW_HEAT, BELOW_WIND):
        assert world.made(key) == {str(day) for day in D[:4]}
    assert asked(world.midnight_after(D[3], hours=2)) == set()
    assert marks_of(world.lake, "reports", D[:4]) == []


@pytest.fixture(scope="module")
def unspoiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """What the tables hold where nothing was ever spoiled, of five days."""
    with opened(tmp_path_factory.mktemp("unspoiled")) as world:
        for day in D[:5]:
            world.midnight_after(day)
        return {name: world.rows(name) for name in ("raw/reports", "features/heat", "features/wind")}


def is_whole(world: World, unspoiled: dict[str, pl.DataFrame], last: date) -> None:
    for name, rows in unspoiled.items():
        assert_frame_equal(world.rows(name), rows.filter(pl.col("known_date") <= last), check_exact=True)


def test_the_tables_are_those_of_a_platform_that_saw_no_fault(world: World, unspoiled: dict[str, pl.DataFrame]) -> None:
    world.midnight_after(D[0])
    world.source.spoiled |= {D[1]: HOT, D[2]: "note"}  # a column that nobody reads is dropped on the third day
    for day in D[1:4]:
        world.midnight_after(day)
        if day == D[2]:
            assert str(D[2]) in world.made(HEAT) & world.made(WIND)
    world.source.spoiled.clear()
    world.midnight_after(D[4])
    is_whole(world, unspoiled, D[4])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_spoiled_and_mended_when_in_the_end_the_tables_are_whole(
    world: World, unspoiled: dict[str, pl.DataFrame], seed: int
) -> None:
    """Random days, columns and moments of mending, a lost cursor now and then."""
    chance = random.Random(seed)
    faults: list[Any] = [HOT, [pl.col("wind") - 500], "note", "temp", [pl.col("wind").cast(pl.String)]]
    for number, day in enumerate(D[:4]):
        if number and chance.random() < 0.5:
            world.source.spoiled[day] = chance.choice(faults)
        for old in list(world.source.spoiled):
            if chance.random() < 0.3:
                del world.source.spoiled[old]
        world.cursor = None if chance.random() < 0.3 else world.cursor
        world.midnight_after(day)
    world.source.spoiled.clear()
    world.midnight_after(D[4])
    is_whole(world, unspoiled, D[4])


def test_a_failure_of_whole_rows_stops_all_that_comes_after(world: World, unspoiled: dict[str, pl.DataFrame]) -> None:
    world.midnight_after(D[0])
    world.source.spoiled[D[1]] = [pl.lit(None, pl.String).alias("id")]
    world.midnight_after(D[1])
    for key in (RAW, HEAT, WIND, BELOW_HEAT, BELOW_WIND):
        assert world.made(key) == {str(D[0])}
    world.midnight_after(D[2])
    world.source.spoiled.clear()
    result = world.midnight_after(D[3])
    assert ("features/heat", str(D[2])) in asked(result)  # it looked back on a day that was not there
    is_whole(world, unspoiled, D[3])


def test_the_check_names_columns_and_days_and_blocks_nothing_in_dagsters_sense(world: World) -> None:
    world.source.spoiled[D[0]] = HOT
    world.midnight_after(D[0])
    key = dg.AssetCheckKey(RAW, "columns")
    (record,) = world.instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).values()
    found = record.evaluation
    assert found is not None
    assert (found.passed, found.severity, found.blocking) == (False, dg.AssetCheckSeverity.ERROR, False)
    assert found.metadata["refused"].value == {"temp": [str(D[0])]}
    assert "temp must not be used: raw/reports.temp of" in str(found.description)
    assert "temp=5" in str(found.metadata["rows: temp_between_-60_and_130"].value)


KILLED_BEFORE_THE_VERDICT = """
    import os, sys
    from datetime import date
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import columns_world
    with columns_world.opened(Path(sys.argv[2])) as world:
        world.midnight_after(columns_world.D[0])
        world.source.spoiled[columns_world.D[1]] = columns_world.HOT
        note = world.instance.handle_new_event
        def ends(event, **options):
            if event.is_dagster_event and event.dagster_event.event_type_value == "ASSET_CHECK_EVALUATION":
                if event.dagster_event.event_specific_data.check_name == "columns":
                    os._exit(9)
            note(event, **options)
        world.instance.handle_new_event = ends
        world.midnight_after(columns_world.D[1])
"""


def test_a_kill_between_a_table_and_the_verdict_on_its_columns_loses_no_refusal(tmp_path: Path) -> None:
    code, here = textwrap.dedent(KILLED_BEFORE_THE_VERDICT), str(Path(__file__).parent)
    script = [sys.executable, "-W", "ignore", "-c", code, here, str(tmp_path)]
    assert subprocess.run(script, check=False).returncode == 9
    with opened(tmp_path) as world:
        abandon_runs(world.instance)
        assert str(D[1]) in world.made(RAW)
        world.source.spoiled[D[1]] = HOT
        assert ("raw/reports", str(D[1])) in asked(world.midnight_after(D[1]))
        assert world.made(WIND) == {str(D[0]), str(D[1])}
        assert world.made(HEAT) == {str(D[0])}
