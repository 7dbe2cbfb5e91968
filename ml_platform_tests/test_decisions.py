"""The record of decisions and the asset that writes it; `test_triggers_kept` says that no interleaving loses one."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform import asset_keys
from ml_platform.decisions import record
from ml_platform.decisions.assets import decision_assets
from ml_platform.decisions.past import Served
from ml_platform.decisions.retraining import Decision
from ml_platform.monitoring.performance import COLUMNS
from ml_platform.resources.projects import load_project
from ml_platform.spec.calendar import day_start
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import DECISION, TRAINING
from ml_platform.stores.ledger_wants import outstanding
from ml_platform.stores.tracking import Tracking
from ml_platform_tests.decision_world import FIRST, NEW_YORK, POLICY, days

# The record


WANT = Decision(answer="retrain", reason="too much loss", measures={"ratio": 1.3})
WAIT = Decision(answer="wait", reason="borne", measures={"ratio": 1.0})


def test_a_retry_on_the_same_day_finds_the_line_that_stands(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    first = record.write(ledger, POLICY, "model", FIRST.isoformat(), day_start(FIRST, NEW_YORK), WAIT)
    again = record.write(ledger, POLICY, "model", FIRST.isoformat(), day_start(FIRST, NEW_YORK), WANT)
    assert again == first
    assert outstanding(ledger, "model") is None


def test_a_line_that_was_overtaken_takes_nothing_back(tmp_path: Path) -> None:
    """Two deciders at once: the one that read earlier writes later."""
    ledger = Ledger(tmp_path / "ledger.db")
    at = day_start(FIRST, NEW_YORK)
    ledger.write(TRAINING, "model", "run-1", at, {"version": 1, "decision": 1})
    record.write(ledger, POLICY, "model", FIRST.isoformat(), at, WANT)
    ledger.write(DECISION, "delay", "2024-02-28", at, {"model": "model", "wanted": 1, "reason": "read before"})
    due = outstanding(ledger, "model")
    assert due is not None
    assert due.body["wanted"] == 2


def test_another_policy_of_the_model_is_heard_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    at = day_start(FIRST, NEW_YORK)
    ledger.write(TRAINING, "model", "run-1", at, {"version": 1, "decision": 3})
    entry = record.write(ledger, replace(POLICY, name="newly_named"), "model", FIRST.isoformat(), at, WANT)
    assert entry.body["wanted"] == 4
    assert outstanding(ledger, "model") == entry


def test_the_champion_as_the_ledger_knows_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert record.served(ledger, "model", NEW_YORK) is None
    clocks_change = date(2024, 3, 10)
    trained, midnight = day_start(clocks_change, NEW_YORK) - timedelta(hours=2), day_start(clocks_change, NEW_YORK)
    ledger.write("training", "model", "run-1", trained, {"version": 1, "decision": 0})
    assert record.served(ledger, "model", NEW_YORK) is None
    ledger.write("promotion", "model", "v1", midnight, {"version": "1"})
    ledger.write("training", "model", "run-2", midnight + timedelta(days=3), {"version": 2, "decision": 1})
    assert record.served(ledger, "model", NEW_YORK) == Served(
        version="1", first_day=clocks_change, trained_at=trained, last_training_at=midnight + timedelta(days=3)
    )
    ledger.write("promotion", "model", "v2", midnight + timedelta(days=3, hours=9), {"version": "2"})
    found = record.served(ledger, "model", NEW_YORK)
    assert found is not None
    assert (found.version, found.first_day) == ("2", date(2024, 3, 14))


# The asset


def test_the_asset_raises_the_alarm_until_it_is_answered(tmp_path: Path) -> None:
    project = load_project("ml_platform_tests.trips")
    policy = replace(POLICY, name="lateness", max_loss_ratio=1.7, cooldown=timedelta(days=2))
    project = replace(project, retrain_policies={"lateness": policy})
    (decision,) = decision_assets(project)
    lake, ledger, clock = Lake(str(tmp_path / "lake")), Ledger(tmp_path / "ledger.db"), Clock(tmp_path / "clock.json")
    tracking = Tracking(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "artifacts"))
    ledger.write("promotion", "late", "v4", day_start(FIRST, NEW_YORK), {"version": "4", "reason": "won"})
    ledger.write("training", "late", "run-1", day_start(FIRST, NEW_YORK), {"version": 4, "decision": 0})
    rows = pl.DataFrame(days(0.3, 0.3, 0.3, *[0.9] * 4), schema=COLUMNS)
    for n in range(7):
        day = FIRST + timedelta(days=n)
        lake.replace("performance/desk", rows[n : n + 1].with_columns(known_date=pl.lit(day)), [day])

    def told(today: date) -> tuple[dict[str, Any], dict[str, Any] | None]:
        clock.set(day_start(today, NEW_YORK))
        made: Any = decision(lake=lake, ledger=ledger, tracking=tracking, clock=clock)
        found = {result.asset_key: dict(result.metadata) for result in made}
        return found[asset_keys.decision("lateness")], found.get(asset_keys.retrain("lateness"))

    before, alarm = told(FIRST + timedelta(days=3))
    assert before["answer"] == "unknown"
    assert alarm is None
    wanted, alarm = told(FIRST + timedelta(days=7))
    assert (wanted["answer"], wanted["retrainings_wanted"], wanted["retrainings_consumed"]) == ("retrain", 1, 0)
    assert alarm is not None
    assert alarm["reason"] == wanted["reason"]
    for _ in range(2):  # the next day without news, and a second attempt on it
        waiting, alarm = told(FIRST + timedelta(days=20))
        assert waiting["answer"] == "unknown"
        assert alarm is not None
        assert (alarm["reason"], alarm["decided_on"]) == (wanted["reason"], "2024-03-07")
    ledger.write("training", "late", "run-2", clock.now(), {"version": 5, "decision": 1})
    assert told(FIRST + timedelta(days=21))[1] is None
