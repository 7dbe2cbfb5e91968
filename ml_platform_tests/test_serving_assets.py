"""Stage 7 as assets: the log moves into the lake, verdicts become deployments, tomorrow is scored at midnight."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from ml_platform import asset_keys
from ml_platform.automation.partitions import daily
from ml_platform.serving.assets import serving_assets
from ml_platform.spec.calendar import days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.prediction_log import Prediction, Truth, named_features
from ml_platform_tests.serving_world import NOON, World, standard

DAY = date(2013, 4, 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def second(tiny: World, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A second version, registered and not promoted."""
    return tiny.register(tiny.trained(tmp_path_factory.mktemp("second"), upside_down=True)).version


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def materialize(tiny: World, lake: Lake, ledger: Ledger, key: dg.AssetKey, *days: date) -> dict[str, Any]:
    """The metadata of the materialized asset (over a range of days, if two are given)."""
    tiny.profile.home.mkdir(exist_ok=True)
    clock = Clock(tiny.profile.home / "clock.json")
    clock.set(NOON)
    stores = {"lake": lake, "ledger": ledger, "clock": clock, "tracking": tiny.tracking}
    tags = {}
    if days:
        tags = {"dagster/asset_partition_range_start": str(days[0]), "dagster/asset_partition_range_end": str(days[-1])}
    assets = serving_assets(tiny.project, daily(tiny.project))
    done = dg.materialize(
        assets, selection=[key], resources={**stores, "prediction_log": tiny.log, "profile": tiny.profile}, tags=tags
    )
    (event,) = done.asset_materializations_for_node("__".join(key.path))[:1]
    return {name: getattr(value, "value", value) for name, value in event.metadata.items()}


def prediction(name: str, asked_at: datetime, load: float | None) -> Prediction:
    return Prediction(
        prediction_id=name,
        model="late",
        model_version="1",
        probability=0.5,
        asked_at=asked_at,
        as_of=asked_at,
        answered_at=NOON,
        entities={"trip": name, "city": "Rome", "line": None},
        feature_names=("city_load__load",),
        features=(load,),
    )


def test_the_days_log_moves_into_the_lake_and_moving_it_again_changes_nothing(
    tiny: World, lake: Lake, ledger: Ledger
) -> None:
    midnight = datetime(2013, 4, 2, 4, tzinfo=UTC)
    tiny.log.append_predictions("desk", DAY, [prediction("a", NOON, 0.1), prediction("a", NOON, 0.2)])
    tiny.log.append_predictions("desk", DAY, [prediction("b", midnight - timedelta(seconds=1), None)])
    tiny.log.append_predictions("desk", DAY + timedelta(days=1), [prediction("c", midnight, 0.3)])
    key = asset_keys.predictions("desk")
    for _ in range(2):
        told = materialize(tiny, lake, ledger, key, DAY, DAY + timedelta(days=2))
        rows = lake.scan("predictions/desk").collect().sort("prediction_id")
        assert rows["prediction_id"].to_list() == ["a", "b", "c"]
        assert rows["known_date"].to_list() == [DAY, DAY, DAY + timedelta(days=1)]
        assert named_features(rows)["city_load__load"].to_list() == [0.1, None, 0.3]
        assert (told["dagster/row_count"], told["doubles_dropped"]) == (3, 1)
        assert told["note"].startswith("nothing on 2013-04-03: the service was not asked, or was down")
    assert materialize(tiny, lake, ledger, key, DAY)["note"] == "complete"
    assert lake.scan("predictions/desk").collect().height == 3


def test_labels_move_by_the_day_they_became_known(tiny: World, lake: Lake, ledger: Ledger) -> None:
    truths = [Truth(prediction_id="a", value=1, known_at=NOON), Truth(prediction_id="b", value=None, known_at=NOON)]
    tiny.log.append_labels("desk", DAY, truths)
    materialize(tiny, lake, ledger, asset_keys.labels("desk"), DAY)
    rows = lake.scan("labels/desk").collect()
    assert rows.select("prediction_id", "value", "known_date").rows() == [("a", 1, DAY), ("b", None, DAY)]


def test_a_day_without_any_log_makes_an_empty_table_that_can_be_read(tiny: World, lake: Lake, ledger: Ledger) -> None:
    for key in (asset_keys.predictions("desk"), asset_keys.labels("desk")):
        told = materialize(tiny, lake, ledger, key, date(2013, 2, 1))
        assert "was not asked, or was down" in told["note"]
        assert lake.scan("/".join(key.path)).collect().height == 0


def test_the_deployment_tells_what_was_done_and_why(tiny: World, second: int, lake: Lake, ledger: Ledger) -> None:
    ledger.write("promotion", "late", "v1", NOON, {"version": "1", "before": None, "reason": "first"})
    verdict = {"state": "fail", "reason": "fail because", "version": second, "champion": 1}
    ledger.write("gate", "late", f"v{second}", NOON, verdict)
    told = materialize(tiny, lake, ledger, asset_keys.service("desk"))
    assert told == {"champion": "1", "action": "refused", "reason": "fail because"}


def test_tomorrow_is_scored_at_midnight_on_what_was_known_then(tiny: World, lake: Lake, ledger: Ledger) -> None:
    midnight = datetime(2013, 4, 2, 4, tzinfo=UTC)
    before, hour = midnight - timedelta(hours=5), timedelta(hours=1)
    trips = [
        ("today", "Rome", midnight - hour, before),
        ("first", "Rome", midnight, before),
        ("last", "Oslo", midnight + 24 * hour - timedelta(seconds=1), before),
        ("day after", "Rome", midnight + 24 * hour, before),
        ("not yet known", "Rome", midnight + hour, midnight + timedelta(seconds=1)),
        ("unseen", "Atlantis", midnight + 2 * hour, before),
    ]
    spine = pl.DataFrame(trips, schema=["trip", "city", "leaves", "known_at"], orient="row").with_columns(
        pl.lit(7, pl.Int64).alias("line"), pl.lit(0.1).alias("load"), pl.lit(DAY).alias("known_date")
    )
    # What the cities' newest trips carried; the load of a trip that becomes known at midnight is tomorrow's news.
    loads = [("Rome", before + hour / 4, 0.1), ("Rome", before + hour / 2, 0.9), ("Rome", midnight, 0.1)]
    history = pl.DataFrame(loads, schema=["city", "known_at", "load"], orient="row").with_columns(
        pl.format("past {}", pl.int_range(pl.len())).alias("trip"),
        pl.lit(3, pl.Int64).alias("line"),
        pl.col("known_at").alias("leaves"),
        pl.col("known_at").dt.convert_time_zone("America/New_York").dt.date().alias("known_date"),
    )
    known = spine.filter(pl.col("trip") != "not yet known")
    late = spine.filter(pl.col("trip") == "not yet known").with_columns(known_date=DAY + timedelta(days=1))
    rows = pl.concat([known, late, history.select(spine.columns)], how="vertical_relaxed")
    lake.replace("raw/trips", rows, days_between(DAY - timedelta(days=90), DAY + timedelta(days=1)))
    past = pl.DataFrame({"trip": ["p"], "line": [7], "delay": [0.3], "known_at": [before], "known_date": [DAY]})
    lake.replace("raw/arrivals", past, [DAY])

    told = materialize(tiny, lake, ledger, asset_keys.batch_predictions("desk"), DAY)
    rows = lake.scan("batch_predictions/desk").collect()
    scored = dict(rows.select("trip", "probability").iter_rows())
    assert list(scored) == ["first", "unseen", "last"]
    assert scored["first"] > 0.8 > 0.2 > scored["last"]
    assert set(rows["as_of"]) == {midnight - hour}
    assert set(rows["known_date"]) == {DAY}
    assert set(rows["model_version"]) == {"1"} == {told["model_version"]}
    materialize(tiny, lake, ledger, asset_keys.batch_predictions("desk"), DAY)
    assert lake.scan("batch_predictions/desk").collect().equals(rows)
