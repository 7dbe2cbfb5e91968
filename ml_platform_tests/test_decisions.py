"""Whether to retrain, the sentence that says why, and that no interleaving loses a wanted retraining."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform import asset_keys
from ml_platform.decisions import record
from ml_platform.decisions.assets import decision_assets
from ml_platform.decisions.retraining import Decision, Served, decide
from ml_platform.monitoring.performance import COLUMNS
from ml_platform.resources.projects import load_project
from ml_platform.spec import RetrainPolicy
from ml_platform.spec.calendar import day_start
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.training.steps import answered

NEW_YORK = "America/New_York"
FIRST = date(2024, 3, 1)
POLICY = RetrainPolicy(
    name="delay",
    window=timedelta(days=3),
    max_loss_ratio=1.2,
    min_rows=100,
    min_maturity=0.9,
    cooldown=timedelta(days=10),
)
CHAMPION = Served(
    version="4",
    first_day=FIRST,
    trained_at=datetime(2024, 2, 29, 5, tzinfo=UTC),
    last_training_at=datetime(2024, 2, 29, 5, tzinfo=UTC),
)


def cohort(n: int, loss: float = 0.4, *, answers: int = 50, mature: float = 1.0, version: str = "4") -> dict[str, Any]:
    resolved = round(answers * mature)
    return {
        "cohort": FIRST + timedelta(days=n),
        "model_version": version,
        "answered": answers,
        "resolved": resolved,
        "labelled": resolved,
        "maturity": mature,
        "loss_sum": loss * resolved,
        "log_loss": loss if resolved else None,
        "auc": 0.7,
        "late_share": 0.2,
    }


def asked(
    cohorts: list[dict[str, Any]], days: int, policy: RetrainPolicy = POLICY, champion: Served | None = CHAMPION
) -> Decision:
    """The decision when the champion has served ``days`` closed days."""
    day = FIRST + timedelta(days=days - 1)
    now = day_start(day + timedelta(days=1), NEW_YORK)
    return decide(policy, pl.DataFrame(cohorts, schema=COLUMNS), champion, day, now)


def days(*losses: float, **changes: Any) -> list[dict[str, Any]]:
    return [cohort(n, loss, **changes) for n, loss in enumerate(losses)]


# Every branch and its sentence


def test_without_a_champion() -> None:
    found = asked([], 5, champion=None)
    assert (found.answer, found.reason) == ("unknown", "there is no champion yet, so nothing can be judged")


@pytest.mark.parametrize("served", [0, 1, 3])
def test_too_few_days(served: int) -> None:
    found = asked(days(*[0.4] * served), served)
    assert found.answer == "unknown"
    assert found.reason.startswith(f"version 4 served {served} days until ")
    assert found.reason.endswith("its first 3 are what later ones are compared with")


def test_a_champion_that_serves_only_from_tomorrow() -> None:
    found = asked([], 1, champion=replace(CHAMPION, first_day=FIRST + timedelta(days=1)))
    assert (found.answer, found.measures["days_served"]) == ("unknown", 0)


def test_no_label_at_all() -> None:
    found = asked(days(0, 0, 0, 0, mature=0), 4)
    assert (found.answer, found.reason) == ("unknown", "version 4's first 3 days have no label")


def test_labels_that_stopped() -> None:
    found = asked([*days(0.4, 0.4, 0.4), *(cohort(n, 0, mature=0) for n in range(3, 12))], 12)
    assert (found.answer, found.reason) == ("unknown", "version 4's newest 3 days until 2024-03-12 have no label")


def test_days_without_answers_at_all() -> None:
    found = asked(days(0.4, 0.4, 0.4), 12)
    assert (found.answer, found.reason) == ("unknown", "version 4's newest 3 days until 2024-03-12 have no label")


def test_an_immature_first_window() -> None:
    found = asked([*days(0.4, 0.4), cohort(2, mature=0.5), cohort(3)], 4)
    assert found.answer == "unknown"
    assert found.reason == "of the truths of version 4's first 3 days 83% arrived; 90% are needed"


def test_an_immature_newest_window() -> None:
    found = asked([*days(0.4, 0.4, 0.4), cohort(3, 9.0, mature=0.5)], 4)
    assert found.answer == "unknown"
    assert found.reason == "of the truths of version 4's newest 3 days 83% arrived; 90% are needed"


def test_too_few_labels() -> None:
    found = asked(days(*[0.4] * 6, answers=33), 6)
    assert (found.answer, found.reason) == ("unknown", "version 4's first 3 days have 99 labels; 100 are needed")


def test_borne_up_to_the_limit() -> None:
    found = asked(days(0.5, 0.5, 0.5, 0.6, 0.6, 0.6), 20 and 6)
    assert found.answer == "wait"
    assert found.reason == (
        "late labels: log-loss 0.6000 on 2024-03-04 to 2024-03-06 (150 labels), 1.20 times version 4's first 3 days "
        "(0.5000 from 2024-03-01); up to 1.2 is borne"
    )
    assert found.measures["ratio"] == 1.2


def test_cooldown() -> None:
    found = asked(days(0.4, 0.4, 0.4, 0.6, 0.6, 0.6), 6)
    assert found.answer == "wait"
    assert found.reason.endswith("; more than 1.2, which is too much, but the cooldown of 10 days lasts 3 more")


@pytest.mark.parametrize(("served", "answer"), [(8, "wait"), (9, "retrain")])
def test_the_cooldown_ends_on_its_last_day(served: int, answer: str) -> None:
    found = asked(days(0.4, 0.4, 0.4, *[0.6] * (served - 3)), served)
    assert found.answer == answer
    assert (" lasts 1 more" in found.reason) == (answer == "wait")


def test_the_cooldown_counts_from_a_training_that_was_refused() -> None:
    refused = replace(CHAMPION, last_training_at=CHAMPION.trained_at + timedelta(days=9))
    assert asked(days(0.4, 0.4, 0.4, *[0.6] * 9), 12, champion=refused).answer == "wait"


def test_retrain() -> None:
    found = asked(days(0.4, 0.4, 0.4, *[0.6] * 9), 12)
    assert found.answer == "retrain"
    assert found.reason == (
        "late labels: log-loss 0.6000 on 2024-03-10 to 2024-03-12 (150 labels), 1.50 times version 4's first 3 days "
        "(0.4000 from 2024-03-01); more than 1.2"
    )


def test_the_window_moves_back_to_a_mature_one_but_not_far() -> None:
    history = days(0.4, 0.4, 0.4, *[0.6] * 9)
    late = [*history[:-2], *(cohort(n, 0.1, mature=0.2) for n in (10, 11))]
    assert "on 2024-03-08 to 2024-03-10" in asked(late, 12).reason
    later = [*history[:-4], *(cohort(n, 0.1, mature=0.2) for n in range(8, 12))]
    assert asked(later, 12).answer == "unknown"


def test_only_the_champions_own_answers_count() -> None:
    others = [cohort(n, 9.0, version=version) for n in range(-5, 12) for version in ("3", "5")]
    assert asked([*days(*[0.4] * 12), *others], 12).answer == "wait"


def test_the_deadline_needs_no_labels_but_keeps_the_cooldown() -> None:
    policy = replace(POLICY, deadline=timedelta(days=30))
    assert asked([], 29, policy).answer == "unknown"  # clocks change in between: 29 days and 23 hours
    found = asked([], 30, policy)
    assert (found.answer, found.reason) == ("retrain", "version 4 is 30 days old; the policy's deadline is 30 days")
    # A training for the deadline whose version the gate refused must not be repeated every day.
    refused = replace(CHAMPION, last_training_at=CHAMPION.trained_at + timedelta(days=30))
    found = asked([], 30, policy, refused)
    assert found.answer == "wait"
    assert found.reason.endswith(
        "the policy's deadline is 30 days, which is too much, but the cooldown of 10 days lasts 10 more"
    )


# The record


class MemoryLedger(Ledger):
    """The same class over one SQLite connection in memory: a thousand histories in seconds."""

    def __init__(self, there: Path) -> None:
        super().__init__(there)
        object.__setattr__(self, "_db", sqlite3.connect(":memory:"))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db: sqlite3.Connection = self._db  # type: ignore[attr-defined]
        with db:
            yield db


WANT = Decision(answer="retrain", reason="too much loss", measures={"ratio": 1.3})
WAIT = Decision(answer="wait", reason="borne", measures={"ratio": 1.0})
UNKNOWN = Decision(answer="unknown", reason="no labels", measures={})


@dataclass
class World:
    """Deciders and trainings in any order, and what must be true of them."""

    ledger: Ledger
    day: date = FIRST
    step: int = 0
    wanted_at: dict[int, int] = field(default_factory=dict)
    running: dict[int, tuple[int, int]] = field(default_factory=dict)  # training -> (began at step, what it answers)
    registered: list[tuple[int, int]] = field(default_factory=list)
    trainings: int = 0

    def at(self) -> datetime:
        return day_start(self.day, NEW_YORK) + timedelta(seconds=self.step)

    def decide(self, found: Decision) -> None:
        entry = record.write(self.ledger, "delay", "model", self.day, self.at(), found)
        self.wanted_at.setdefault(int(entry.body["wanted"]), self.step)

    def begin(self) -> None:
        self.trainings += 1
        self.running[self.trainings] = (self.step, answered(self.ledger.last(record.DECISION, "delay")))

    def register(self, training: int) -> None:
        began, decision = self.running.pop(training)
        self.ledger.write(
            record.TRAINING, "model", f"run-{training}", self.at(), {"version": training, "decision": decision}
        )
        self.registered.append((began, training))

    def move(self, chance: random.Random) -> None:
        self.step += 1
        action = chance.choice(
            ["decide", "decide", "decide", "begin", "register", "register", "fail", "kill", "midnight", "midnight"]
        )
        if action == "decide":
            self.decide(chance.choice([WANT, WANT, WAIT, UNKNOWN]))
        elif action == "begin":
            self.begin()
        elif action == "register" and self.running:
            self.register(chance.choice(list(self.running)))
        elif action == "fail" and self.running:
            self.running.pop(chance.choice(list(self.running)))
        elif action == "kill":
            self.running.clear()
        elif action == "midnight":
            self.day += timedelta(days=1)

    def check(self) -> None:
        wants = {number: step for number, step in self.wanted_at.items() if number}
        unanswered = [n for n, step in wants.items() if not any(began > step for began, _ in self.registered)]
        due = record.outstanding(self.ledger, "delay", "model")
        assert (due is not None) == bool(unanswered), (wants, self.registered)
        if due:
            assert due.body["reason"] == WANT.reason
            assert [int(due.body["wanted"])] == unanswered  # never two at once, none skipped


@pytest.mark.parametrize("part", range(4))
def test_a_wanted_retraining_stays_wanted_until_a_later_training_is_registered(part: int, tmp_path: Path) -> None:
    answered_wants = 0
    for seed in range(part * 260, part * 260 + 260):
        chance = random.Random(seed)
        world = World(MemoryLedger(tmp_path))
        for _ in range(chance.randrange(3, 25)):
            world.move(chance)
            world.check()
        # In the end whatever is left over is trained, however often that fails first.
        for last in (False, True):
            world.step += 1
            world.begin()
            world.step += 1
            if last:
                world.register(max(world.running))
            else:
                world.running.clear()
        world.check()
        assert record.wanted(world.ledger, "delay") == record.consumed(world.ledger, "model")
        answered_wants += len([n for n in world.wanted_at if n])
    assert answered_wants > 130


def test_the_same_on_a_file(tmp_path: Path) -> None:
    for seed in range(8):
        chance = random.Random(seed)
        world = World(Ledger(tmp_path / f"{seed}.db"))
        for _ in range(20):
            world.move(chance)
            world.ledger = Ledger(tmp_path / f"{seed}.db")
            world.check()


def test_a_retry_on_the_same_day_finds_the_line_that_stands(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    first = record.write(ledger, "delay", "model", FIRST, day_start(FIRST, NEW_YORK), WAIT)
    again = record.write(ledger, "delay", "model", FIRST, day_start(FIRST, NEW_YORK), WANT)
    assert again == first
    assert record.wanted(ledger, "delay") == 0


def test_a_line_that_was_overtaken_takes_nothing_back(tmp_path: Path) -> None:
    """Two deciders at once: the one that read earlier writes later."""
    ledger = Ledger(tmp_path / "ledger.db")
    at = day_start(FIRST, NEW_YORK)
    ledger.write(record.TRAINING, "model", "run-1", at, {"version": 1, "decision": 1})
    record.write(ledger, "delay", "model", FIRST, at, WANT)
    ledger.write(record.DECISION, "delay", "2024-02-28", at, {"wanted": 1, "reason": "read before", "answer": "wait"})
    due = record.outstanding(ledger, "delay", "model")
    assert due is not None
    assert due.body["wanted"] == 2


def test_another_policy_of_the_model_is_heard_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    at = day_start(FIRST, NEW_YORK)
    ledger.write(record.TRAINING, "model", "run-1", at, {"version": 1, "decision": 3})
    entry = record.write(ledger, "newly_named", "model", FIRST, at, WANT)
    assert entry.body["wanted"] == 4
    assert record.outstanding(ledger, "newly_named", "model") == entry


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
    ledger.write("promotion", "late", "v4", day_start(FIRST, NEW_YORK), {"version": "4"})
    ledger.write("training", "late", "run-1", day_start(FIRST, NEW_YORK), {"version": 4, "decision": 0})
    rows = pl.DataFrame(days(0.3, 0.3, 0.3, *[0.9] * 4), schema=COLUMNS)
    for n in range(7):
        day = FIRST + timedelta(days=n)
        lake.replace("performance/desk", rows[n : n + 1].with_columns(known_date=pl.lit(day)), [day])

    def told(today: date) -> tuple[dict[str, Any], dict[str, Any] | None]:
        clock.set(day_start(today, NEW_YORK))
        made = decision(lake=lake, ledger=ledger, clock=clock)
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
