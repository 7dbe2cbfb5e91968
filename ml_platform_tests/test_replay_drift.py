"""A lasting change of the concept travels the graph: drift, decision, training, evaluation, rollout, champion."""

import json
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_platform import asset_keys
from ml_platform.automation.instance import open_instance
from ml_platform.decisions.why import why
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import (
    BEGIN,
    DECISION,
    DRIFT,
    GATE,
    GATHERING,
    PROMOTION,
    REQUEST,
    REVIEW,
    ROLLOUT,
    TRAINING,
)
from ml_platform.stores.ledger_lines import Lines
from ml_platform_tests.replay_world import LAST, TripsHome, eve, folder, midnight_after, shared
from ml_platform_tests.trips.world import SHIFTS_ON

pytestmark = pytest.mark.long
__all__ = ["folder"]
DRIFTING = "ml_platform_tests.trips_drifting"
UNTIL = LAST + timedelta(days=1)  # a day of rollout, and one of the new champion
WAY = (DRIFT, DECISION, GATHERING, TRAINING, GATE, BEGIN, ROLLOUT, PROMOTION)


def drifted(folder: Path) -> TripsHome:
    """The world moved, and was replayed to ``UNTIL`` without a disturbance."""

    def make(home: TripsHome) -> None:
        summary = eve(folder).copy(home.path, DRIFTING).run(UNTIL, behaviour="moved")
        (home.path / "summary.json").write_text(json.dumps(summary))

    return TripsHome(shared(folder, "drifted", make).path, DRIFTING)


def test_a_lasting_change_travels_from_drift_to_champion(folder: Path) -> None:
    home = drifted(folder)
    ledger = Ledger(home.profile.ledger_path)
    moved = next(line for line in ledger.entries(DRIFT, "inputs") if line.body["day"] == str(SHIFTS_ON))
    way = [line for line in ledger.all() if line.kind in WAY and line.number >= moved.number]
    way = [line for line in way if line.kind != DECISION or line.body["answer"] == "retrain"]
    assert [kind for kind in dict.fromkeys(line.kind for line in way) if kind != DRIFT] == list(WAY[1:])
    decision = next(line for line in way if line.kind == DECISION)
    assert decision.key == str(SHIFTS_ON)
    assert decision.body["reason"].startswith(f"drift/inputs failed: {SHIFTS_ON}: ")
    assert [one["line"] for one in decision.body["asked"]] == [moved.number]
    (training,) = [line for line in way if line.kind == TRAINING]
    assert (training.body["decision"], training.body["version"]) == (decision.body["wanted"], 2)
    assert training.body["heard"] >= moved.number
    assert home.champion() == 2
    assert not ledger.entries(REVIEW, "late")  # what a policy answers, no person is asked about
    summary = json.loads((home.path / "summary.json").read_text())
    assert (summary["values_mismatched"], summary["failures"]) == (0, [])


def test_the_graph_shows_the_way(folder: Path) -> None:
    """Each asset was made after the one before it, and once only where that is enough."""
    home = drifted(folder)
    way = [
        asset_keys.drift("inputs"),
        asset_keys.decision("lateness"),
        asset_keys.retrain("lateness"),
        asset_keys.training_set("late"),
        asset_keys.model("late"),
        asset_keys.evaluation("late"),
        asset_keys.service("desk"),
    ]
    with open_instance(home.profile.dagster_home) as instance:
        made = {key: instance.fetch_materializations(key, limit=1000, ascending=True).records for key in way}
        (alarm,) = made[asset_keys.retrain("lateness")]
        newest = [one for one in made[asset_keys.drift("inputs")] if one.partition_key == str(SHIFTS_ON)][-1]
        assert newest.storage_id < alarm.storage_id
        assert alarm.asset_materialization is not None
        assert "drift/inputs failed" in str(alarm.asset_materialization.metadata["reason"].value)
        before = alarm.storage_id
        for key in way[3:]:
            before = next(one.storage_id for one in made[key] if one.storage_id > before)
        told = made[asset_keys.decision("lateness")][-1].asset_materialization
        assert told is not None
        assert told.metadata["why"] == dg.TextMetadataValue(_why(home))


def _why(home: TripsHome) -> str:
    """As told when the last decision was written: lines of the same midnight came behind it."""
    ledger = Ledger(home.profile.ledger_path)
    last = ledger.entries(DECISION, "lateness")[-1]
    stood = tuple(line for line in ledger.all() if line.number <= last.number)
    return why(Lines(ledger.path, stood), "late", last.at).text


def test_why_tells_it_at_every_midnight(folder: Path) -> None:
    ledger = Ledger(drifted(folder).profile.ledger_path)
    before = why(ledger, "late", midnight_after(SHIFTS_ON - timedelta(days=1)))
    assert "drift" not in " ".join(before.sentences[:1])
    at = why(ledger, "late", midnight_after(SHIFTS_ON))
    assert at.sentences[0].startswith(f"After {SHIFTS_ON} it was decided to retrain, which has been done: drift/inputs")
    after = why(ledger, "late", midnight_after(UNTIL))
    assert any(one.startswith("Version 2 has been champion since ") for one in after.sentences)
    assert any(f"as decided after {SHIFTS_ON} (drift/inputs failed: " in one for one in after.sentences)


def test_a_person_asks_on_a_replayed_state(folder: Path, tmp_path: Path) -> None:
    """The request is written at once, and what it wants is trained with the next replayed midnight."""
    home = eve(folder).copy(tmp_path / "home", DRIFTING)
    said = home.start("retrain", "late", "--by", "Ada", "--reason", "a new depot opens").wait()
    assert said.code == 0, said.said
    assert "the next decision raises its alarm" in said.said
    told = home.start("why", "late").wait()
    assert "it was decided to retrain: Ada asked for it on 2024-03-09: a new depot opens." in told.said
    home.run(SHIFTS_ON)
    (request,) = home.ledger(REQUEST, "late")
    trainings = home.ledger(TRAINING, "late")
    assert [line.body["decision"] for line in trainings] == [0, 1]
    assert trainings[1].body["heard"] > request.number
