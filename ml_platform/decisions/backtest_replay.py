"""A policy carried through the past: day by day it decides, versions are trained, judged and take over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from ml_platform.decisions.backtest_cohorts import Cohorts, Span
from ml_platform.decisions.backtest_estimate import estimated
from ml_platform.decisions.backtest_history import ROW, History
from ml_platform.decisions.backtest_policies import Policy, Seen
from ml_platform.decisions.backtest_versions import Floats, Version, Versions
from ml_platform.decisions.past import Fact, Outcome, Past, Served, Trained
from ml_platform.decisions.retraining import Decision
from ml_platform.evaluation.comparison import beside_each_other, fresh
from ml_platform.evaluation.gate import Evidence, judge
from ml_platform.spec import ASKED_AT, TooFewLabels, Verdict
from ml_platform.spec.calendar import day_start, days_between


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """What came of a decision. promoted: the version took over; ``verdict``: the gate's sentence."""

    day: date
    reason: str
    promoted: bool
    verdict: str
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One policy's way. decisions: every day's. failures: day -> why a wanted retraining could not be carried out.

    answers: what the service would have answered to each question of the arena.
    """

    policy: Policy
    decisions: Mapping[date, Decision]
    retrainings: tuple[Retraining, ...]
    failures: Mapping[date, str]
    answers: Floats


@dataclass(frozen=True, kw_only=True)
class Arena:
    """Where policies are replayed: the days [first, last], and what they share.

    lag: whole days from the gate's word to the moment when a version takes over (a rollout takes its time).
    """

    history: History
    versions: Versions
    cohorts: Cohorts
    first: date
    last: date
    started: datetime
    lag: timedelta = timedelta(0)
    _judged: dict[tuple[datetime, datetime], Verdict] = field(default_factory=dict, init=False, repr=False)
    _estimates: dict[tuple[datetime, datetime, float], Verdict] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The questions that are answered: ``row``, ``asked_on``; one after the other."""
        end = day_start(self.last + timedelta(days=1), self.history.timezone)
        within = pl.col(ASKED_AT).is_between(self.started, end, closed="left")
        return self.history.questions.filter(within).select(ROW, "asked_on")

    def gate(self, challenger: Version, champion: Version) -> Verdict:
        """The gate's verdict on the challenger, by the platform's own criteria; without a gate it passes."""
        if not self.versions.gated:
            return Verdict(state="pass", reason="no gate was asked")
        key = (challenger.now, champion.now)
        if key not in self._judged:
            self._judged[key] = judge(self._evidence(challenger, champion), self.versions.spec).verdict
        return self._judged[key]

    def estimate(self, now: datetime, champion: Version, min_gain: float) -> Verdict:
        """What the platform would have said that a retraining gains."""
        key = (now, champion.now, min_gain)
        if key not in self._estimates:
            spec = self.history.spec  # the days that a gate would look at, whether or not there is one
            self._estimates[key] = estimated(self.history, spec, champion, self.started, now, min_gain)
        return self._estimates[key]

    def _evidence(self, challenger: Version, champion: Version) -> Evidence:
        rows, spec = self.versions.holdout(challenger.now), self.versions.spec
        given = (challenger.answers.of(rows[ROW]), champion.answers.of(rows[ROW]))
        scored = beside_each_other(rows, *given, self.history.timezone, challenger.beside)
        return Evidence(
            scored=fresh(scored, champion.trained_until),
            rows=fresh(rows.drop(ROW), champion.trained_until),
            encoding=challenger.encoding,
            weights=challenger.weights,
            latency_ms=challenger.latency_ms,
            timezone=self.history.timezone,
            maturity=self.history.maturity(challenger.now - spec.gate.holdout, challenger.now),
        )


@dataclass
class _Stand:
    """Where a replay stands. due: the reason of a retraining that is wanted and was not carried out yet.

    asked: drift that nothing has answered. wanted: how many retrainings were decided.
    """

    spans: list[Span]
    served: Served
    trainings: list[Trained]
    asked: list[Fact] = field(default_factory=list)
    lines: int = 0
    spared_at: datetime | None = None
    wanted: int = 0
    due: str | None = None
    coming: tuple[date, Version] | None = None
    retrainings: list[Retraining] = field(default_factory=list)
    failures: dict[date, str] = field(default_factory=dict)

    def past(self) -> Past:
        """As the platform's record would tell it."""
        return Past(
            champion=self.served,
            trainings=tuple(self.trainings),
            facts=tuple(self.asked),
            spared_at=self.spared_at,
            wanted=self.wanted if self.due else 0,
        )


def replay(policy: Policy, arena: Arena, told: Callable[[date], object] = lambda _: None) -> Replayed:
    """Carry the policy through the arena's days; the evening of the last one decides nothing, as nothing follows.

    told: is told each day when it has ended.

    Raises:
        TooFewLabels: no first version can be trained.
    """
    stand, decisions = _begun(arena), {}
    for day in days_between(arena.first, arena.last)[:-1]:
        now = day_start(_next(day), arena.history.timezone)
        _hear(stand, policy, day, now)
        found = decisions[day] = policy.decide(_seen(arena, stand, day, now))
        stand.asked = [fact for fact in stand.asked if fact.line not in found.spares]
        stand.spared_at = now if found.spares_time else stand.spared_at
        if found.answer == "retrain" and not stand.due:
            stand.wanted, stand.due = stand.wanted + 1, found.reason
        if stand.due:
            _carry_out(arena, stand, day, now, stand.due)
        if stand.coming and stand.coming[0] == _next(day):
            _take_over(arena, stand, *stand.coming)
        told(day)
    return Replayed(
        policy=policy,
        decisions=decisions,
        retrainings=tuple(stand.retrainings),
        failures=stand.failures,
        answers=_answers(arena, stand.spans),
    )


def name_of(version: Version) -> str:
    """As the prediction log would name it; two versions are never of the same moment."""
    return f"of {version.now:%Y-%m-%d}"


def _next(day: date) -> date:
    return day + timedelta(days=1)


def _begun(arena: Arena) -> _Stand:
    first, at = arena.versions.at(arena.started), arena.started
    begins = arena.first if at == day_start(arena.first, arena.history.timezone) else _next(arena.first)
    return _Stand(
        spans=[Span(version=first, name=name_of(first), first=arena.first, last=arena.last)],
        served=Served(version=name_of(first), first_day=begins, trained_at=at, last_training_at=at),
        trainings=[Trained(version=name_of(first), at=at, outcome="promoted", since=at)],
    )


def _hear(stand: _Stand, policy: Policy, day: date, now: datetime) -> None:
    """What drifted on the day asks until it is answered."""
    for name, verdicts in policy.drifts.items():
        if verdicts[day].state == "fail":
            stand.lines += 1
            stand.asked.append(Fact(kind="drift", at=now, reason=verdicts[day].reason, name=name, line=stand.lines))


def _seen(arena: Arena, stand: _Stand, day: date, now: datetime) -> Seen:
    spans = tuple(stand.spans)
    return Seen(
        first=arena.first,
        day=day,
        now=now,
        timezone=arena.history.timezone,
        past=stand.past(),
        # Of the champion alone: whatever else answered before is not looked at.
        cohorts=lambda: arena.cohorts.until(day, spans[-1:]),
        estimate=lambda min_gain: arena.estimate(now, spans[-1].version, min_gain),
    )


def _carry_out(arena: Arena, stand: _Stand, day: date, now: datetime, reason: str) -> None:
    """Train and judge; what cannot be trained yet stays wanted, as in the platform's record."""
    try:
        challenger = arena.versions.at(now)
    except TooFewLabels as error:
        stand.failures[day] = str(error)
        return
    verdict = arena.gate(challenger, stand.spans[-1].version)
    stand.due, stand.asked = None, []
    stand.served = replace(stand.served, last_training_at=now)
    stand.trainings = [replace(one, outcome="ended") if one.outcome == "open" else one for one in stand.trainings]
    stand.trainings.append(_registered(challenger, stand, "open" if verdict.passed else "ended"))
    stand.retrainings.append(
        Retraining(
            day=day,
            reason=reason,
            promoted=verdict.passed,
            verdict=verdict.reason,
            seconds=challenger.seconds,
            cpu_seconds=challenger.cpu_seconds,
        )
    )
    if verdict.passed:
        stand.coming = (_next(day) + arena.lag, challenger)


def _registered(version: Version, stand: _Stand, outcome: Outcome) -> Trained:
    return Trained(
        version=name_of(version),
        at=version.now,
        outcome=outcome,
        since=version.now,
        decision=stand.wanted,
        heard=stand.lines,
    )


def _take_over(arena: Arena, stand: _Stand, first: date, version: Version) -> None:
    name = name_of(version)
    stand.spans[-1] = replace(stand.spans[-1], last=first - timedelta(days=1))
    stand.spans.append(Span(version=version, name=name, first=first, last=arena.last))
    stand.served = replace(stand.served, version=name, first_day=first, trained_at=version.now)
    stand.trainings = [replace(one, outcome="promoted") if one.version == name else one for one in stand.trainings]
    stand.coming = None


def _answers(arena: Arena, spans: list[Span]) -> Floats:
    rows = arena.rows
    found = np.full(rows.height, np.nan)
    for span in spans:
        own = rows["asked_on"].is_between(span.first, span.last).to_numpy()
        found[own] = span.version.answers.of(rows[ROW].filter(pl.Series(own)))
    return found
