"""Nothing is promoted while the service answers on other values than those that are recomputed."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from ml_platform import asset_keys
from ml_platform.automation.partitions import daily
from ml_platform.evaluation.assets import evaluation_assets
from ml_platform.monitoring.assets import EQUAL, monitoring_assets
from ml_platform.serving.assets import serving_assets
from ml_platform.serving.deployment import deploy
from ml_platform.spec import KNOWN_AT
from ml_platform.spec.calendar import days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import forgotten_in
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import PROMOTION
from ml_platform_tests.serving_world import NOON, World, standard

DAY = date(2013, 4, 1)
MEAN = "line_past__delay_mean_1d"
# What an online store serves that is not what training would have seen: feature, served, recomputed.
FAULTS = {
    "a default changed online only": ("idle", MEAN, 5.0, None),
    "a time zone shifted online only": ("busy", MEAN, 10.0, 30.0),  # as of noon four hours earlier
    "a null served as 0": ("idle", MEAN, 0.0, None),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("gate"))


class Shop:
    """A lake in which one day was served, and a second version that the gate let pass."""

    def __init__(self, tiny: World, folder: Path) -> None:
        self.lake, self.ledger = Lake(str(folder / "lake")), Ledger(folder / "ledger.db")
        self.ledger.write(PROMOTION, "late", "v1", NOON - timedelta(days=1), {"version": "1", "before": None})
        self.clock = Clock(folder / "clock.json")
        self.clock.set(NOON + timedelta(days=1))
        days = days_between(DAY - timedelta(days=9), DAY)
        moments = [NOON - timedelta(hours=5), NOON - timedelta(hours=1)]
        ended = pl.DataFrame({"trip": ["a", "b"], "line": [7, 7], "delay": [10.0, 50.0], KNOWN_AT: moments})
        trip = {"trip": "t", "city": "Rome", "line": 3, "load": 0.9, "leaves": NOON, KNOWN_AT: NOON - timedelta(days=3)}
        for name, rows in (("arrivals", ended), ("trips", pl.DataFrame([trip]))):
            dated = rows.with_columns(known_date=pl.col(KNOWN_AT).dt.convert_time_zone("America/New_York").dt.date())
            self.lake.replace(f"raw/{name}", dated, days)
        stores = {"lake": self.lake, "ledger": self.ledger, "clock": self.clock, "tracking": tiny.tracking}
        self.resources = {**stores, "profile": tiny.profile, "forgotten": forgotten_in(folder)}
        days_def = daily(tiny.project)
        self.assets = [
            *(asset for asset in monitoring_assets(tiny.project, days_def) if asset_keys.skew("desk") in asset.keys),
            *(asset for asset in serving_assets(tiny.project, days_def) if asset.key == asset_keys.service("desk")),
            *(asset for asset in evaluation_assets(tiny.project) if asset.key == asset_keys.evaluation("late")),
        ]

    def serve(self, changed: Mapping[str, Mapping[str, float | None]]) -> None:
        """Yesterday's answers: what is right, but for the changed values."""
        right = {"city_load__load": 0.9, "city_load__newest": 3.0}
        rows = []
        for name, line, mean in (("busy", 7, 30.0), ("idle", 9, None)):
            values = {**right, MEAN: mean, **changed.get(name, {})}
            rows.append(
                {
                    "prediction_id": name,
                    "asked_at": NOON,
                    "as_of": NOON,
                    "entities": json.dumps({"trip": name, "city": "Rome", "line": line}),
                    "feature_names": list(values),
                    "features": list(values.values()),
                    "known_date": DAY,
                }
            )
        self.lake.replace("predictions/desk", pl.DataFrame(rows), [DAY])

    def look(self, instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
        """The day's skew, looked at by its asset."""
        done = dg.materialize(
            self.assets,
            selection=[asset_keys.skew("desk")],
            resources=self.resources,
            partition_key=str(DAY),
            instance=instance,
            raise_on_error=False,  # a blocking check that fails ends its run
        )
        (check,) = done.get_asset_check_evaluations()
        return check

    def wants_to_deploy(self, instance: dg.DagsterInstance) -> bool:
        result = dg.evaluate_automation_conditions(
            defs=dg.Definitions(self.assets, resources=self.resources),
            instance=instance,
            evaluation_time=datetime(2013, 4, 2, 4, 1, tzinfo=UTC),
            asset_selection=dg.AssetSelection.assets(asset_keys.service("desk")),
        )
        return result.total_requested > 0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_online_side_alone_holds_a_promotion_until_it_is_mended(
    tiny: World, tmp_path: Path, fault: str
) -> None:
    shop = Shop(tiny, tmp_path)
    who, feature, served, recomputed = FAULTS[fault]
    version = tiny.register(tiny.trained(tmp_path / "model", upside_down=True)).version
    shop.ledger.write("gate", "late", f"v{version}", NOON, {"version": version, "state": "pass", "reason": "better"})
    instance = dg.DagsterInstance.ephemeral()
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_keys.evaluation("late")))

    shop.serve({who: {feature: served}})
    check = shop.look(instance)
    assert (check.check_name, check.passed, check.blocking) == (EQUAL, False, True)
    assert f"{who} was served {feature} = {served}, recomputed {recomputed}" in str(check.description)
    (example,) = check.metadata["examples"].records
    assert (example.data["prediction_id"], example.data["feature"]) == (who, feature)
    assert not shop.wants_to_deploy(instance)
    # A person who materializes the service by hand is held back, too, and told why.
    held = deploy(tiny.project.services["desk"], tiny.tracking, shop.ledger, NOON)
    assert (held.action, held.champion) == ("held", "1")
    assert feature in held.reason
    assert tiny.tracking.champion_version("late") == 1

    shop.serve({})
    assert shop.look(instance).passed
    assert shop.wants_to_deploy(instance)
    assert deploy(tiny.project.services["desk"], tiny.tracking, shop.ledger, NOON).action == "promoted"
    tiny.tracking.promote("late", 1)
