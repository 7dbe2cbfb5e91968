"""`ml-platform retrain`, `why`, and `approve` and `reject` of drift, on a state folder."""

import json
import sqlite3
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ml_platform import asset_keys
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.cli import main
from ml_platform.decisions import record
from ml_platform.decisions.retraining import weigh
from ml_platform.monitoring.drift_record import note
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.spec import Verdict
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import DECISION, DRIFT, REVIEW, REVIEWED, TRAINING
from ml_platform.stores.ledger_wants import outstanding
from ml_platform.stores.texts import Words
from ml_platform_tests.trigger_world import LOSSES

PACKAGE = "ml_platform_tests.trips"
NOON = datetime(2024, 3, 9, 17, tzinfo=UTC)
MOVED = Verdict(state="fail", reason="miles moved")


class State:
    """A replayed state at noon of 9 March with a champion."""

    def __init__(self, home: Path) -> None:
        self.profile = Profile.at(home, project=PACKAGE)
        Home(home).prepare(PACKAGE)
        self.project, self.ledger = load_project(PACKAGE), Ledger(self.profile.ledger_path)
        Clock(self.profile.clock_path).set(NOON)
        began = NOON - timedelta(days=5)
        self.ledger.write(TRAINING, "late", "run 1", began, {"version": 1, "decision": 0, "heard": 0})
        self.ledger.write("promotion", "late", "v1", began, {"version": "1", "before": None, "reason": "the first"})

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, list(words), catch_exceptions=False)

    def drift(self, day: int) -> None:
        note(self.ledger, self.project, "inputs", date(2024, 3, day), NOON, MOVED)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ML_PLATFORM_PROJECT", PACKAGE)
    return State(tmp_path / "home")


def test_a_person_asks(state: State) -> None:
    done = state.run("retrain", "late", "--by", " Ada ", "--reason", "a new depot opens")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "line 3: Ada asks for a retraining of late",
        "line 4: retraining 1 is wanted; the next decision raises its alarm",
    ]
    due = outstanding(state.ledger, "late")
    assert due is not None
    assert due.body["reason"] == "Ada asked for it on 2024-03-09: a new depot opens"
    assert [rest["kind"] for rest in due.body["held"]] == []
    # Asked again while it is wanted, it is the same one; each request is written.
    again = state.run("retrain", "late", "--by", "Ada", "--reason", "really")
    assert "retraining 1 is wanted" in again.output
    told = state.run("why", "late").output
    assert (
        "On the word of line 5 it was decided to retrain: Ada asked for it on 2024-03-09: a new depot opens; Ada"
        in told
    )
    assert "has brought no version yet: it has not begun" in told


def test_a_request_without_its_decision_is_taken_up_later(state: State) -> None:
    """As a kill between the two lines leaves it."""
    from ml_platform.decisions.reviews import request

    line = request(state.ledger, "late", "Ada", "a new depot opens", NOON)
    policy = state.project.retrain_policies["lateness"]
    assert [fact.line for fact in record.past(state.ledger, policy, "late", "UTC").facts] == [line.number]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("retrain", "nobody", "--by", "A", "--reason", "b"), "nobody"),
        (("retrain", "late", "--by", " ", "--reason", "b"), "WordRefused: the ledger keeps who decided and why"),
        (("retrain", "late", "--by", "A"), "Missing option '--reason'"),
        (("approve", "late", "--by", "A", "--reason", "b"), "give a VERSION, or --drift"),
        (("approve", "late", "1", "--drift", "2", "--by", "A", "--reason", "b"), "give a VERSION, or --drift"),
        (("approve", "late", "--drift", "2", "--by", "A", "--reason", "b"), "line 2 opens no review of late"),
        (("why", "nobody"), "nobody"),
        (("why", "late", "--at", "yesterday"), "'yesterday' is no moment like"),
        (("why", "late", "--at", "2024-03-09T00:00"), "has no timezone"),
        (("why", "late", "--at", "2099-03-09T00:00+00:00"), "has not come yet"),
    ],
)
def test_what_cannot_be_done_is_said(state: State, words: tuple[str, ...], says: str) -> None:
    before = state.ledger.height()
    done = state.run(*words)
    assert done.exit_code != 0
    assert says in done.output
    assert state.ledger.height() == before


def test_drift_that_no_policy_answers_waits_for_a_word(state: State) -> None:
    for day in (7, 8, 9):
        state.drift(day)
    (review,) = state.ledger.entries(REVIEW, "late")  # one incident, one question
    assert len(state.ledger.entries(DRIFT, "inputs")) == 3
    assert (
        f"`ml-platform approve late --drift {review.number} --by NAME --reason WHY`" in state.run("why", "late").output
    )
    policy = state.project.retrain_policies["lateness"]
    assert not record.past(state.ledger, policy, "late", "UTC").facts
    done = state.run("approve", "late", "--drift", str(review.number), "--by", "Ada", "--reason", "a new radar")
    assert done.exit_code == 0, done.output
    assert "is a reason to retrain it, which the next decision does, said Ada" in done.output
    (word,) = state.ledger.entries(REVIEWED, "late")
    assert [fact.line for fact in record.past(state.ledger, policy, "late", "UTC").facts] == [word.number]
    assert "waits for a word" not in state.run("why", "late").output
    assert f"line {review.number} is a reason" in state.run("history", "late").output
    again = state.run("approve", "late", "--drift", str(review.number), "--by", "Bob", "--reason", "me too")
    assert again.exit_code == 0
    assert len(state.ledger.entries(REVIEWED, "late")) == 1
    refused = state.run("reject", "late", "--drift", str(review.number), "--by", "Bob", "--reason", "no")
    assert refused.exit_code == 1
    assert "Ada said 'retrain' of review" in refused.output


def test_drift_that_was_let_be_asks_for_nothing(state: State) -> None:
    state.drift(9)
    (review,) = state.ledger.entries(REVIEW, "late")
    assert (
        state.run("reject", "late", "--drift", str(review.number), "--by", "Ada", "--reason", "a fair").exit_code == 0
    )
    policy = state.project.retrain_policies["lateness"]
    past = record.past(state.ledger, policy, "late", "UTC")
    assert (past.facts, past.reviews) == ((), ())


def test_another_incident_asks_again(state: State) -> None:
    state.drift(1)
    state.drift(9)
    assert len(state.ledger.entries(REVIEW, "late")) == 2


def test_a_training_answers_a_review_and_what_drifts_after_it_is_asked_about_again(state: State) -> None:
    policy = state.project.retrain_policies["lateness"]

    def waiting() -> list[int]:
        return [one.line for one in record.past(state.ledger, policy, "late", "UTC").reviews]

    def trained(version: int, day: int, heard: int) -> None:
        at = datetime(2024, 3, day, 5, tzinfo=UTC)
        body = {"version": version, "decision": 0, "heard": heard}
        state.ledger.write(TRAINING, "late", f"run {version}", at, body)

    state.drift(5)
    (first,) = waiting()
    trained(2, 6, first - 1)  # it had read its rows before the question
    assert waiting() == [first]
    assert f"--drift {first}" in state.run("why", "late").output
    trained(3, 6, first)
    assert waiting() == []
    assert "waits for a word" not in state.run("why", "late").output
    state.drift(6)  # a day that the training saw, or that is made again
    assert waiting() == []
    state.drift(7)
    state.drift(8)
    (again,) = waiting()
    assert state.ledger.entries(REVIEW, "late")[-1].key == "drift/inputs from 2024-03-05, again after version 3"
    done = state.run("reject", "late", "--drift", str(again), "--by", "Ada", "--reason", "a fair")
    assert done.exit_code == 0, done.output
    trained(4, 8, state.ledger.height())
    state.drift(9)  # a person's word stands for the incident
    assert waiting() == []
    assert len(state.ledger.entries(REVIEW, "late")) == 2


def test_why_as_json_and_of_a_moment(state: State) -> None:
    state.run("retrain", "late", "--by", "Ada", "--reason", "a new depot opens")
    plain = json.loads(state.run("why", "late", "--json").output)
    assert (plain["champion"], plain["decision"]["answer"], plain["next"]["wanted"], plain["broken"]) == (
        "1",
        "retrain",
        True,
        None,
    )
    assert plain["sentences"] == state.run("why", "late").output.splitlines()
    before = state.run("why", "late", "--at", (NOON - timedelta(days=1)).isoformat()).output
    assert before.splitlines()[0] == "No decision was made yet about when late is trained again."
    assert "Ada" not in before
    first = state.run("why", "late", "--at", "2024-01-01T00:00+00:00").output
    assert first == "By 2024-01-01 00:00 UTC the record says nothing of late.\n"


def test_a_ledger_that_was_tampered_with_is_not_told_from(state: State) -> None:
    state.run("retrain", "late", "--by", "Ada", "--reason", "a new depot opens")
    with sqlite3.connect(state.profile.ledger_path) as db:
        db.execute("DROP TRIGGER keeps_words")
        db.execute("UPDATE ledger SET body = replace(body, 'Ada', 'Eve')")
    done = state.run("why", "late")
    assert (done.exit_code, "LedgerBroken" in done.output) == (1, True)
    anyway = state.run("why", "late", "--anyway")
    assert anyway.exit_code == 1
    assert "Eve asked for it" in anyway.output


def test_the_decision_on_a_request_stands_beside_that_of_the_day(state: State) -> None:
    state.run("retrain", "late", "--by", "Ada", "--reason", "a new depot opens")
    (line,) = state.ledger.entries(DECISION, "lateness")
    assert line.key == "2024-03-08 line 3"


def test_a_reason_that_was_forgotten_is_said_to_be_gone(state: State) -> None:
    """It stood in the request and in the decisions that repeat it."""
    policy = state.project.retrain_policies["lateness"]
    state.run("retrain", "late", "--by", "Ada", "--reason", "trip 20240309-07 went astray")
    for day in ("2024-03-08", "2024-03-09"):
        past = record.past(state.ledger, policy, "late", "UTC")
        record.write(state.ledger, policy, "late", day, NOON, weigh(policy, past, LOSSES["borne"], NOON, "UTC"))
    gone = Words(entity="trip", text="20240309-07", ids=frozenset(), names=frozenset(), token="forgotten-0123")
    assert state.ledger.redact(gone, "trip", "ab" * 16, NOON) == 4
    told = state.run("why", "late")
    assert told.exit_code == 0
    assert "20240309-07" not in told.output
    assert "(redacted: it named an entity that was forgotten)" in told.output
    assert record.past(state.ledger, policy, "late", "UTC").facts  # it asks all the same
    assert outstanding(state.ledger, "late") is not None


def test_where_dagster_runs_live_the_alarm_is_raised_at_once(state: State) -> None:
    state.profile.clock_path.unlink()
    state.profile.dagster_home.mkdir(parents=True)
    write_dagster_yaml(state.profile.dagster_home, replayed=False)
    done = state.run("retrain", "late", "--by", "Ada", "--reason", "a new depot opens")
    assert done.output.splitlines()[1] == "line 4: retraining 1 is wanted; its alarm is raised"
    with open_instance(state.profile.dagster_home) as instance:
        event = instance.get_latest_materialization_event(asset_keys.retrain("lateness"))
    assert event is not None
    assert event.asset_materialization is not None
    assert "Ada asked for it" in str(event.asset_materialization.metadata["reason"].value)
