"""Deciders, people, drift and trainings in any order, killed between any two writes; and what must be true of them.

What is asked and what is answered is counted here by steps, without a look at the ledger's numbers.
"""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ml_platform.decisions import record
from ml_platform.decisions.past import Served
from ml_platform.decisions.retraining import Decision, weigh
from ml_platform.decisions.reviews import answer, request
from ml_platform.decisions.windows import Losses
from ml_platform.monitoring.drift_record import open_review
from ml_platform.spec import RetrainPolicy, Verdict
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import DRIFT, GATHERING, PROMOTION, REFUSAL, REVIEWED, TRAINING
from ml_platform.stores.ledger_wants import Answers, heard_now, outstanding

MOVES = (
    *("draft", "draft", "decide", "decide", "decide", "happens", "says", "day", "day"),
    *("begin", "gather", "gather", "register", "register", "judge", "judge", "kill", "fail"),
)
BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
STRICT = RetrainPolicy(
    name="strict",
    triggers=("inputs",),
    cooldown=timedelta(days=2),
    budget=2,
    budget_time=timedelta(days=6),
    breaker=1,
    breaker_rest=None,
    estimate="holds",
    patience=timedelta(hours=1),
)
EASY = RetrainPolicy(name="easy", cooldown=timedelta(days=1), every=timedelta(days=5), breaker=None)
FIRST_CHAMPION = Served(version="0", first_day=BEGAN.date(), trained_at=BEGAN, last_training_at=BEGAN)
LOSSES = {
    state: Losses(state=state, reason=f"losses are {state}", measures={}) for state in ("bad", "borne", "unknown")
}
GAIN = {state: Verdict(state=state, reason=f"estimate: {state}") for state in ("pass", "fail", "unknown")}


class ListLedger(Ledger):
    """The same lines in a list, for ten thousand histories in seconds; a test compares it with the real one."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        object.__setattr__(self, "lines", [])
        object.__setattr__(self, "keys", {})

    lines: list[Entry]
    keys: dict[tuple[str, str, str], Entry]

    def write(self, kind: str, subject: str, key: str, at: datetime, body: Any) -> Entry:
        stands = self.keys.get((kind, subject, key))
        if stands is None:
            told: Mapping[str, Any] = body() if callable(body) else body
            stands = Entry(number=len(self.lines) + 1, at=at, kind=kind, subject=subject, key=key, body=dict(told))
            self.lines.append(stands)
            self.keys[(kind, subject, key)] = stands
        return stands

    def all(self) -> list[Entry]:
        return list(self.lines)

    def about(self, subject: str, kinds: Collection[str]) -> list[Entry]:
        return [line for line in self.lines if line.subject == subject and line.kind in kinds]

    def of_kind(self, kind: str) -> list[Entry]:
        return [line for line in self.lines if line.kind == kind]

    def height(self) -> int:
        return len(self.lines)


@dataclass
class Training:
    """One attempt: when its rows were read, whether its set stands, which number it is."""

    number: int
    began: int
    heard: Answers
    gathered: bool = False


@dataclass
class TriggerWorld:
    """The model ``m`` with two policies. Steps count everything that happens."""

    ledger: Ledger
    chance: random.Random
    step: int = 0
    day: int = 0
    asked: dict[int, int] = field(
        default_factory=dict
    )  # line of what happened once -> the step in which it was written
    questions: dict[int, int] = field(default_factory=dict)  # the same of reviews on which nobody has said a word
    wants: dict[int, int] = field(default_factory=dict)  # number of a wanted retraining -> step of its first line
    answers: list[int] = field(default_factory=list)  # steps in which registered trainings had read their rows
    spared: set[int] = field(default_factory=set)
    drafts: list[tuple[RetrainPolicy, Decision]] = field(default_factory=list)  # decided and not written yet
    running: list[Training] = field(default_factory=list)
    registered: list[int] = field(default_factory=list)  # and not judged yet
    trainings: int = 0
    held_by_breaker: bool = False

    @property
    def now(self) -> datetime:
        return BEGAN + timedelta(days=self.day, seconds=self.step)

    # Deciders

    def draft(self, policy: RetrainPolicy, losses: str | None = None, gain: str | None = None) -> None:
        """Read and weigh; what is written of it may be written much later."""
        past = record.past(self.ledger, policy, "m", "UTC")
        self.look(policy, {fact.line for fact in past.facts})
        found = LOSSES[losses or self.chance.choice(["bad", "borne", "borne", "unknown"])]
        estimate = GAIN[gain or self.chance.choice(["pass", "fail", "unknown"])]
        if past.champion is None:
            past = replace(past, champion=FIRST_CHAMPION)
        self.drafts.append((policy, weigh(policy, past, found, self.now, "UTC", lambda: estimate)))

    def decide(self) -> None:
        """Write a draft down; the day's first line of a policy stands."""
        if not self.drafts:
            return
        policy, found = self.drafts.pop(self.chance.randrange(len(self.drafts)))
        before = self.ledger.height()
        line = record.write(self.ledger, policy, "m", str(self.day), self.now, found)
        if line.number > before:
            self.spared |= set(found.spares)
            if int(line.body["wanted"]):
                self.wants.setdefault(int(line.body["wanted"]), self.step)

    # What happens once

    def happens(self) -> None:
        kind = self.chance.choice(["request", "drift", "review"])
        before = self.ledger.height()
        if kind == "request":
            line = request(self.ledger, "m", "Ada", "why not", self.now)
        elif kind == "drift":
            line = self.ledger.write(DRIFT, "inputs", str(self.step), self.now, {"day": "d", "reason": "miles moved"})
        else:
            day = BEGAN.date() + timedelta(days=self.step)
            line = open_review(self.ledger, "m", "drift/other", day, day, "it moved", self.now)
            assert line.number > before
            self.questions[line.number] = self.step
            return
        assert line.number > before
        self.asked[line.number] = self.step

    def says(self) -> None:
        waiting = record.open_reviews(self.ledger, "m")
        last = max(self.answers, default=-1)
        assert [one.line for one in waiting] == [line for line, step in self.questions.items() if step >= last]
        if waiting:
            retrain = self.chance.random() < 0.5
            told: dict[str, Any] = {"by": "Ada", "reason": "I looked", "now": self.now}
            review = self.chance.choice(waiting).line
            line = answer(self.ledger, "m", review, retrain=retrain, **told)
            del self.questions[review]
            assert line.kind == REVIEWED
            if retrain:
                self.asked[line.number] = self.step

    # Trainings

    def begin(self) -> None:
        """Read what is wanted, then the rows."""
        self.trainings += 1
        self.running.append(Training(self.trainings, self.step, heard_now(self.ledger, "m")))

    def gather(self) -> None:
        """The training set stands; whoever trains now learns from it, also another process."""
        waiting = [one for one in self.running if not one.gathered]
        if waiting:
            one = self.chance.choice(waiting)
            one.gathered = True
            body = {"decision": one.heard.decision, "heard": one.heard.heard, "manifest": {"declared": "d"}}
            self.ledger.write(GATHERING, "m", f"run {one.number}", self.now, body)

    def register(self) -> None:
        waiting = [one for one in self.running if one.gathered]
        if waiting:
            one = self.chance.choice(waiting)
            self.running.remove(one)
            body = {"version": one.number, "decision": one.heard.decision, "heard": one.heard.heard}
            self.ledger.write(TRAINING, "m", f"run {one.number}", self.now, body)
            self.answers.append(one.began)
            self.registered.append(one.number)

    def judge(self, *, promote: bool | None = None) -> None:
        if self.registered:
            version = str(self.registered.pop(0))
            passed = self.chance.random() < 0.4 if promote is None else promote
            body = {"version": version, "before": None, "reason": "judged", "gate": 0}
            self.ledger.write(PROMOTION if passed else REFUSAL, "m", f"v{version}", self.now, body)

    def move(self) -> None:
        self.step += 1
        action = self.chance.choice(MOVES)
        if action == "draft":
            self.draft(self.chance.choice([STRICT, STRICT, EASY]))
        elif action == "kill":  # of every process: what was not written is gone
            self.running.clear()
            self.drafts.clear()
        elif action == "fail" and self.running:
            self.running.pop(self.chance.randrange(len(self.running)))
        elif action == "day":
            self.day += 1
        elif action in ("decide", "happens", "says", "begin", "gather", "register", "judge"):
            getattr(self, action)()

    # What must be true

    def unanswered(self) -> set[int]:
        """Lines of what happened once, that no registered training read its rows after."""
        last = max(self.answers, default=-1)
        return {line for line, step in self.asked.items() if step >= last}

    def look(self, policy: RetrainPolicy, facts: set[int]) -> None:
        """Everything unanswered asks at each decision, and nothing else does."""
        kinds = {line.number: line.kind for line in self.ledger.about("m", ("request", "reviewed"))}
        expected = self.unanswered() - self.spared
        heard = {line for line in expected if line in kinds or policy.triggers}
        assert facts == heard, (policy.name, facts, heard)

    def check(self) -> None:
        """A wanted retraining is outstanding until a training that began after it was written is registered."""
        last = max(self.answers, default=-1)
        due = outstanding(self.ledger, "m")
        open_wants = [number for number, step in self.wants.items() if step >= last]
        assert ([int(due.body["wanted"])] if due else []) == open_wants, (self.wants, self.answers)

    def settled(self) -> bool:
        return not outstanding(self.ledger, "m") and self.unanswered() <= self.spared

    def settle(self) -> None:
        """From now on everything works: what is wanted is trained and promoted; after a while a person asks.

        That closes a breaker that nothing else closes; what waited behind it is answered then.
        """
        self.running.clear()
        self.drafts.clear()
        for n in range(30):
            self.day, self.step = self.day + 1, self.step + 1
            while self.registered:
                self.judge(promote=True)
            if n and self.settled():
                return
            if n == 9:
                assert self.held_by_breaker, "nothing else holds so long"
                self.asked[request(self.ledger, "m", "Ada", "is the breaker open?", self.now).number] = self.step
            for policy in (EASY, STRICT):
                self.step += 1
                self.draft(policy, losses="borne", gain="pass")
                self.held_by_breaker = any(rest.kind == "breaker" for _, one in self.drafts for rest in one.held)
                self.decide()
            if outstanding(self.ledger, "m"):
                self.step += 1
                self.begin()
                self.step += 1
                self.gather()
                self.register()
            self.check()
