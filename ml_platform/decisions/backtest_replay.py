"""A policy carried through the past: day by day it decides, versions are trained, judged and take over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from ml_platform.decisions.backtest_cohorts import Cohorts, Span
from ml_platform.decisions.backtest_history import ROW, History
from ml_platform.decisions.backtest_policies import Policy, Seen
from ml_platform.decisions.backtest_versions import Floats, Version, Versions
from ml_platform.decisions.retraining import Decision, Served
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
    processor_seconds: float


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
    """Where a replay stands. due: the reason of a retraining that is wanted and was not carried out yet."""

    spans: list[Span]
    served: Served
    due: str | None = None
    coming: tuple[date, Version] | None = None
    retrainings: list[Retraining] = field(default_factory=list)
    failures: dict[date, str] = field(default_factory=dict)


def replay(policy: Policy, arena: Arena, told: Callable[[date], object] = lambda _: None) -> Replayed:
    """Carry the policy through the arena's days; the evening of the last one decides nothing, as nothing follows.

    told: is told each day when it has ended.

    Raises:
        TooFewLabels: no first version can be trained.
    """
    stand, decisions = _begun(arena), {}
    for day in days_between(arena.first, arena.last)[:-1]:
        now = day_start(day + timedelta(days=1), arena.history.timezone)
        seen = Seen(
            first=arena.first,
            day=day,
            now=now,
            champion=stand.served,
            cohorts=lambda day=day: arena.cohorts.until(day, stand.spans),  # type: ignore[misc]
        )
        found = decisions[day] = policy.decide(seen)
        if found.answer == "retrain" or stand.due:
            _carry_out(arena, stand, day, now, stand.due or found.reason)
        if stand.coming and stand.coming[0] == day + timedelta(days=1):
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


def _begun(arena: Arena) -> _Stand:
    first = arena.versions.at(arena.started)
    begins = arena.first if arena.started == day_start(arena.first, arena.history.timezone) else _next(arena.first)
    served = Served(version=name_of(first), first_day=begins, trained_at=arena.started, last_training_at=arena.started)
    return _Stand(spans=[Span(version=first, name=name_of(first), first=arena.first, last=arena.last)], served=served)


def _next(day: date) -> date:
    return day + timedelta(days=1)


def _carry_out(arena: Arena, stand: _Stand, day: date, now: datetime, reason: str) -> None:
    """Train and judge; what cannot be trained yet stays wanted, as in the platform's record."""
    try:
        challenger = arena.versions.at(now)
    except TooFewLabels as error:
        stand.due, stand.failures[day] = reason, str(error)
        return
    verdict = arena.gate(challenger, stand.spans[-1].version)
    stand.due = None
    stand.served = _trained(stand.served, now)
    stand.retrainings.append(
        Retraining(
            day=day,
            reason=reason,
            promoted=verdict.passed,
            verdict=verdict.reason,
            seconds=challenger.seconds,
            processor_seconds=challenger.processor_seconds,
        )
    )
    if verdict.passed:
        stand.coming = (_next(day) + arena.lag, challenger)


def _trained(served: Served, now: datetime) -> Served:
    return Served(
        version=served.version, first_day=served.first_day, trained_at=served.trained_at, last_training_at=now
    )


def _take_over(arena: Arena, stand: _Stand, first: date, version: Version) -> None:
    last = stand.spans[-1]
    stand.spans[-1] = Span(version=last.version, name=last.name, first=last.first, last=first - timedelta(days=1))
    stand.spans.append(Span(version=version, name=name_of(version), first=first, last=arena.last))
    stand.served = Served(
        version=name_of(version),
        first_day=first,
        trained_at=version.now,
        last_training_at=stand.served.last_training_at,
    )
    stand.coming = None


def _answers(arena: Arena, spans: list[Span]) -> Floats:
    rows = arena.rows
    found = np.full(rows.height, np.nan)
    for span in spans:
        own = rows["asked_on"].is_between(span.first, span.last).to_numpy()
        found[own] = span.version.answers.of(rows[ROW].filter(pl.Series(own)))
    return found
