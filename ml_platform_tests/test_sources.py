"""Stage 1: ingestion into the lake, raw tables as Dagster assets."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from ml_platform import asset_keys
from ml_platform.automation.partitions import RANGE_END_TAG, RANGE_START_TAG, daily
from ml_platform.sources.assets import source_assets
from ml_platform.sources.ingest import fetch, ingest, nothing_lost
from ml_platform.spec import (
    ContractBroken,
    MissingHistory,
    Project,
    SourceError,
    SourceTable,
)
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import forgotten_in
from ml_platform_tests.shop_world import D1, D2, D3, LATER, NY, SHOPS, UTC_TIME, at, frame, sales, table


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    lake.replace("raw/shops", SHOPS, None)
    return lake


def run(source: SourceTable, lake: Lake, first: date, last: date, now: datetime = LATER) -> Any:
    return ingest(source, lake, first, last, now, NY)


# Ingestion


def test_a_bad_day_cannot_hide_among_good_ones(lake: Lake) -> None:
    bad = sales(D2, 20).with_columns(shop=pl.lit("east"))
    good = [sales(D1, 300), sales(D3, 300)]
    found = run(table(pl.concat([*good, bad])), lake, D1, D3)
    assert [(one.column, one.day) for one in found.refused] == [("shop", D2)]
    nowhere = [pl.lit(None, pl.String).alias("id")]  # without its key a row is none: that refuses the batch
    with pytest.raises(ContractBroken, match=r"20 of 20 rows of raw/sales \(2024-03-10\) were set aside"):
        run(table(pl.concat([*good, bad.with_columns(nowhere)])), lake, D1, D3)


def test_hour_by_hour_gives_the_same_as_the_whole_day_at_once(lake: Lake, tmp_path: Path) -> None:
    rows = pl.concat([sales(D1, 30), sales(D2, 46), sales(D3, 30)]).with_columns(
        colour=pl.when(pl.col("value") == 9).then(pl.lit("green")).otherwise("colour")
    )
    source = table(rows, max_quarantined=0.5)
    for hour in range(24):  # the day of the clock change has 23 hours
        now = at(D2, hour)
        found = run(source, lake, D2, D2, now)
        assert found.good["known_at"].max() is None or found.good["known_at"].max() <= now
        assert nothing_lost(source, lake, D2, D2, now, NY).state == "pass"
    at_once = Lake(str(tmp_path / "once"))
    at_once.replace("raw/shops", SHOPS, None)
    run(source, at_once, D2, D2)
    for name in ("raw/sales", "quarantine/sales"):
        one, other = (store.scan(name).collect().sort("id") for store in (lake, at_once))
        assert one.equals(other)
    assert lake.count("raw/sales") + lake.count("quarantine/sales") == 46
    assert lake.days("raw/sales") == {D2}


def test_known_at_equal_to_now_is_known_and_a_microsecond_later_is_not(lake: Lake) -> None:
    now = at(D1, 12)
    rows = frame(("now", 1, "red", "north", now), ("later", 1, "red", "north", now + timedelta(microseconds=1)))
    assert run(table(rows), lake, D1, D1, now).good["id"].to_list() == ["now"]


def test_a_refused_batch_leaves_raw_alone_keeps_the_rows_and_is_mended_by_a_retry(lake: Lake) -> None:
    good = sales(D1, 20)
    state = {"rows": good}
    source = table(lambda: state["rows"])
    run(source, lake, D1, D1)
    state["rows"] = good.with_columns(pl.lit(None, pl.String).alias("id"))
    with pytest.raises(ContractBroken, match=r"Nothing was written to raw/sales; 20 rows are kept in quarantine/sales"):
        run(source, lake, D1, D1)
    assert lake.scan("raw/sales").collect()["shop"].unique().to_list() == ["north"]
    assert lake.scan("quarantine/sales").collect()["reason"].unique().to_list() == ["id_not_null"]
    assert nothing_lost(source, lake, D1, D1, LATER, NY).state == "fail"
    state["rows"] = good
    run(source, lake, D1, D1)
    assert nothing_lost(source, lake, D1, D1, LATER, NY).state == "pass"


def test_a_reader_that_hands_out_rows_from_outside_is_stopped(lake: Lake) -> None:
    rows = pl.concat([sales(D1, 10), frame(("lost", 1, "red", "north", None)), sales(D2, 1)])
    source = replace(table(rows), read=lambda start, end: rows)
    with pytest.raises(ContractBroken, match="2 of 12 rows of raw/sales break known_at_in_the_interval_asked_for"):
        run(source, lake, D1, D1)
    kept = lake.scan("quarantine/sales").collect()
    assert set(kept["id"]) == {"lost", "s10-000"}
    assert kept["known_date"].unique().to_list() == [D1]


def test_nothing_lost_sees_rows_that_went_missing_or_doubled(lake: Lake) -> None:
    source = table(sales(D1, 10))
    raw = run(source, lake, D1, D1).good
    for changed, difference in ((raw.head(9), "-1 rows"), (pl.concat([raw, raw.head(2)]), "+2 rows")):
        lake.replace("raw/sales", changed, [D1])
        verdict = nothing_lost(source, lake, D1, D1, LATER, NY)
        assert verdict.state == "fail"
        assert difference in verdict.reason


def test_an_empty_day_is_unknown_also_within_a_range_and_days_to_come_are_not_missed(lake: Lake) -> None:
    source = table(pl.concat([sales(D1, 5), sales(D3, 5)]))
    found = run(source, lake, D1, D3 + timedelta(days=9), at(D3, 23))
    assert found.empty_days == (D2,)
    assert found.contract.state == "unknown"
    assert (
        "gave no rows for 1 of the days asked for (2024-03-10); look whether its feed stopped" in found.contract.reason
    )
    assert run(replace(source, may_be_empty=True), lake, D2, D2).contract.state == "pass"
    assert lake.scan("raw/sales").collect().height == 10


def test_a_missing_reference_says_which_table_is_needed(tmp_path: Path) -> None:
    with pytest.raises(MissingHistory, match="raw/shops was never written"):
        run(table(sales(D1, 5)), Lake(str(tmp_path)), D1, D1)


def test_an_empty_reference_refuses_the_column_that_refers_to_it(lake: Lake) -> None:
    found = ingest(table(sales(D1, 20)), lake, D1, D1, LATER, NY, references={"shops": SHOPS.clear()})
    (refused,) = found.refused
    assert (refused.column, refused.rule, refused.broken) == ("shop", "shop_in_shops", 20)


def test_fetch_judges_and_writes_nothing(lake: Lake) -> None:
    batch = fetch(table(sales(D1, 20)), D1, D1, LATER, NY, {"shops": SHOPS})
    assert (batch.good.height, batch.refusal, lake.exists("raw/sales")) == (20, None, False)


# As assets


def _project(source: SourceTable) -> Project:
    shops = SourceTable(
        name="shops",
        read=lambda start, end: SHOPS.with_columns(pl.lit(at(D1, 0), UTC_TIME).alias("known_at")),
        columns={"shop": pl.String, "known_at": UTC_TIME},
        key=("shop",),
        description="The shops.",
        known_at_source="assumed",
        partitioned=False,
    )
    return Project(
        name="shops",
        features="feature_defs",
        timezone=NY,
        starts=D1,
        ready_from=D1,
        serves_from=D2,
        replay_until=D3,
        ends=D3 + timedelta(days=20),
        tables={"sales": source, "shops": shops},
    )


def _materialize(source: SourceTable, home: Path, first: date, last: date) -> dg.ExecuteInProcessResult:
    project = _project(source)
    clock = Clock(home / "clock.json")
    clock.set(LATER)
    days = daily(project)
    below = asset_keys.model("below")

    @dg.asset(key=below, deps=[asset_keys.raw("sales")], partitions_def=days)
    def downstream() -> None: ...

    return dg.materialize(
        [*source_assets(project, days), downstream],
        resources={"lake": Lake(str(home / "lake")), "clock": clock, "forgotten": forgotten_in(home)},
        tags={RANGE_START_TAG: str(first), RANGE_END_TAG: str(last)},
        raise_on_error=False,
    )


def _checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    return {(e.asset_key.path[-1], e.check_name): e for e in result.get_asset_check_evaluations()}


def test_a_range_run_writes_every_day_once_and_its_checks_pass(tmp_path: Path) -> None:
    source = table(pl.concat([sales(day, 15) for day in (D1, D2, D3)]))
    for _ in range(2):
        result = _materialize(source, tmp_path, D1, D2)
        assert result.success
        assert all(check.passed for check in _checks(result).values())
        assert set(_checks(result)) == {
            (t, c) for t in ("sales", "shops") for c in ("contract", "columns", "nothing_lost")
        }
    lake = Lake(str(tmp_path / "lake"))
    assert lake.days("raw/sales") == {D1, D2}
    assert lake.count("raw/sales") == 30
    made = result.asset_materializations_for_node("raw__sales")
    assert [m.partition for m in made] == [str(D1), str(D2)]
    assert made[0].metadata["dagster/row_count"].value == 30


def test_a_broken_contract_fails_the_step_with_its_text_and_stops_downstream(tmp_path: Path) -> None:
    source = table(sales(D1, 20).with_columns(pl.lit(None, pl.String).alias("id")))
    result = _materialize(source, tmp_path, D1, D1)
    assert not result.success
    failure = result.failure_data_for_node("raw__sales")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "20 of 20 rows" in str(failure.user_failure_data.description)
    check = _checks(result)["sales", "contract"]
    assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
    assert not result.asset_materializations_for_node("raw__sales")
    assert not result.asset_materializations_for_node("models__below")
    assert Lake(str(tmp_path / "lake")).count("quarantine/sales") == 20


def test_an_unreadable_source_fails_the_step_with_its_text(tmp_path: Path) -> None:
    def broken() -> pl.DataFrame:
        raise SourceError("sales.csv.zip is damaged; fetch it again")

    result = _materialize(table(broken), tmp_path, D1, D1)
    failure = result.failure_data_for_node("raw__sales")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == "sales.csv.zip is damaged; fetch it again"


def test_an_empty_day_fails_its_check_without_stopping_anything(tmp_path: Path) -> None:
    result = _materialize(table(sales(D1, 5)), tmp_path, D2, D2)
    assert result.success
    check = _checks(result)["sales", "contract"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "gave no rows for 1 of the days asked for (2024-03-10)" in str(check.description)
    assert result.asset_materializations_for_node("models__below")


def test_quarantined_rows_are_told_in_the_check(tmp_path: Path) -> None:
    rows = sales(D1, 20).with_columns(
        colour=pl.when(pl.col("id") == "s09-003").then(pl.lit("green")).otherwise("colour")
    )
    check = _checks(_materialize(table(rows), tmp_path, D1, D1))["sales", "contract"]
    assert check.passed
    assert "1 of 20 rows were set aside in quarantine/sales: colour_is_known (1)" in str(check.description)
    assert check.metadata["colour_is_known"].value == 1


def test_what_people_see_of_a_raw_table() -> None:
    project = _project(table(sales(D1, 5)))
    sold, shops = source_assets(project, daily(project))
    spec = next(iter(sold.specs))
    assert spec.key == asset_keys.raw("sales")
    assert spec.group_name == "sources"
    assert (spec.kinds, spec.owners) == ({"deltalake", "polars"}, ["team:data-engineering"])
    assert spec.metadata["fresh_within_hours"] == 26
    assert [dep.asset_key for dep in spec.deps] == [asset_keys.raw("shops")]
    assert shops.partitions_def is None
    assert next(iter(shops.specs)).automation_condition is not None
