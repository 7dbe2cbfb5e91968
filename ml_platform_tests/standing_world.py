"""A state folder in which every part of the platform has something to tell, written by the platform's own functions."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.decisions import record
from ml_platform.decisions.retraining import Decision
from ml_platform.monitoring.drift import COLUMNS as DRIFT_COLUMNS
from ml_platform.monitoring.performance import COLUMNS as PERFORMANCE_COLUMNS
from ml_platform.resources import metadata
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.case import Case
from ml_platform.serving.referee import line_of
from ml_platform.serving.rollout import Look, Standing
from ml_platform.serving.rollout_files import rollout_file
from ml_platform.spec import Verdict
from ml_platform.spec.alerts import of_incident
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import GATE, PROMOTION, REVIEW, ROLLBACK, SKEW, TRAINING
from ml_platform.stores.outbox import Outbox
from ml_platform.stores.rollout_state import Rollout, history_path
from ml_platform_tests.alert_world import PROJECT, Planted, incident

TODAY = date(2013, 5, 10)
NOW = datetime(2013, 5, 11, 4, 1, tzinfo=UTC)  # just after midnight in New York
MODEL, SERVICE = "delay_lightgbm", "delay"


def told_by_everything(home: Path) -> Profile:
    """The folder's profile; time is replayed."""
    profile = Profile.at(home, project=PROJECT)
    Clock(profile.clock_path).set(NOW)
    _lake(Lake(profile.lake, profile.storage_options))
    _ledger(Ledger(profile.ledger_path))
    _rollout(profile)
    record_a_check(profile.dagster_home)
    planted = Planted(profile, TODAY)
    open_one, warned = incident("raw/weather.temp", TODAY), incident("raw/planes.seats", TODAY, severity="warn")
    planted.plant(open_one, warned, over := incident("raw/flight_outcomes.arr_delay", TODAY))
    planted.end(over)
    Outbox(profile.outbox_path).note([of_incident(open_one)], {}, ["webhook", "mail"], TODAY)
    return profile


def _lake(lake: Lake) -> None:
    for asset in ("raw/weather", "features/weather_now"):
        rows = pl.DataFrame({"value": [1.0], PARTITION: [TODAY]})
        lake.replace(asset, rows, [TODAY])
    cohorts = [
        (TODAY - timedelta(days=age), "3", 100, share, share, share / 100, 0.5 * share, 0.5, 0.7, 0.2, 0.5, 0.7)
        for age, share in ((0, 80), (1, 100), (9, 100))
    ]
    performance = pl.DataFrame(cohorts, schema=PERFORMANCE_COLUMNS, orient="row")
    lake.replace(f"performance/{SERVICE}", performance.with_columns(pl.lit(TODAY).alias(PARTITION)), [TODAY])
    rows = [
        {"feature": "temp", "of": "values", "distance": 0.2, "threshold": 0.4, "verdict": "pass"},
        {"feature": "dewp", "of": "missing values", "distance": None, "threshold": None, "verdict": "unknown"},
    ]
    drift = pl.DataFrame(rows, schema=dict(DRIFT_COLUMNS)).with_columns(pl.lit(TODAY).alias(PARTITION))
    lake.replace("drift/delay_inputs", drift, [TODAY])


def _ledger(ledger: Ledger) -> None:
    at = NOW - timedelta(days=20)
    for version in ("1", "2"):
        at += timedelta(days=1)
        ledger.write(TRAINING, MODEL, version, at, {"version": version, "decision": 0, "manifest": "", "files": {}})
        verdict = {"version": version, "state": "pass", "reason": "", "champion": None, "measures": {}}
        ledger.write(GATE, MODEL, version, at, verdict)
        moved = {"alias": "champion", "version": version, "before": None, "reason": "", "gate": None, "approval": None}
        ledger.write(PROMOTION, MODEL, version, at, moved)
    ledger.write(ROLLBACK, MODEL, "x", at, {"version": "1", "before": "2", "reason": "worse"})
    policy = load_project(PROJECT).retrain_policies["delay"]
    ledger.write(REVIEW, MODEL, "drift/delay_inputs from then", at, {"drift": "drift/delay_inputs", "reason": "moved"})
    for day, answer in ((1, "wait"), (2, "retrain"), (3, "wait")):
        found = Decision(answer=answer, reason="so", measures={"ratio": 1.2, "version": "1"})  # type: ignore[arg-type]
        key = str(TODAY - timedelta(days=4 - day))
        record.write(ledger, policy, MODEL, key, NOW - timedelta(days=4 - day), found)
    for day, differing in ((TODAY - timedelta(days=1), 3), (TODAY, 0)):
        body = {"days": str(day), "compared": 50, "differing": differing, "reason": ""}
        ledger.write(SKEW, SERVICE, str(day), NOW, body)


def _rollout(profile: Profile) -> None:
    file, policy = rollout_file(profile, SERVICE), load_project(PROJECT).rollout_policies["delay_rollout"]
    told = {"model": MODEL, "champion": "1", "canary": "2", "phase": "canary", "step": 1, "share": 0.05, "reason": "so"}
    rollout = Rollout(number=1, change=1, begun=NOW, since=NOW - timedelta(hours=2), **told)  # type: ignore[arg-type]
    file.change(lambda _: rollout)
    standing = Standing(against=0.5, in_favour=12.0, canary=40, champion=400)
    look = Look(at=NOW, standings={"loss": standing}, shadowed=600, answered=40)
    line = json.dumps(line_of(policy, rollout, look, Case(policy)))
    history_path(file, 1).write_text(f"{line}\n{line[:20]}")  # the last one is still being written


def record_a_check(dagster_home: Path, postgres_url: str | None = None) -> None:
    """A run of a service's checks, one unknown and one failed, and an asset that is late, in Dagster's record."""
    key = dg.AssetKey(["services", "delay"])

    specs = [dg.AssetCheckSpec(name, asset=key) for name in ("ledger_intact", "aliases")]

    @dg.asset(key=key, check_specs=specs)
    def service():  # type: ignore[no-untyped-def]
        found = Verdict(state="unknown", reason="nothing yet")
        checks = [metadata.check(found, name="ledger_intact"), dg.AssetCheckResult(passed=False, check_name="aliases")]
        return dg.MaterializeResult(check_results=checks)

    write_dagster_yaml(dagster_home, replayed=True, postgres_url=postgres_url)
    with open_instance(dagster_home) as instance:
        assert dg.materialize([service], instance=instance).success
        change = FreshnessStateChange(
            key=key,
            new_state=FreshnessState.WARN,
            previous_state=FreshnessState.UNKNOWN,
            state_change_timestamp=NOW.timestamp(),
        )
        instance._report_runless_asset_event(change)
