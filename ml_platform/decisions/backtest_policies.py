"""When to train again: the policies that a backtest sets beside each other."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from ml_platform.decisions.past import Past
from ml_platform.decisions.retraining import Decision, Estimate, decide
from ml_platform.monitoring.performance import COLUMNS
from ml_platform.spec import RetrainPolicy, Verdict
from ml_platform.spec.calendar import days_between

NEVER, DECLARED, DRIFT = "never", "declared", "drift"
_NO_COHORTS = pl.DataFrame(schema=COLUMNS)


Drifts = Mapping[str, Mapping[date, Verdict]]  # by drift policy and day


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a policy may look at when ``day`` has ended.

    first: the replay's first day. cohorts: as the platform's performance table, computed when it is looked at.
    estimate: what a retraining would gain, if it is to be more than a given log-loss; None: nobody says.
    """

    first: date
    day: date
    now: datetime
    timezone: str
    past: Past
    cohorts: Callable[[], pl.DataFrame]
    estimate: Callable[[float], Verdict] | None = None


Decide = Callable[[Seen], Decision]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Its name in the table, what it does in words, and its decision at the end of a day.

    drifts: the verdicts of the drift policies that trigger it.
    """

    name: str
    description: str
    decide: Decide
    drifts: Drifts = field(default_factory=dict)


def never() -> Policy:
    """The first version for ever."""
    return Policy(name=NEVER, description="the first version serves on", decide=lambda _: _wait("never"))


def every(days: int, name: str = "") -> Policy:
    """A timer."""

    def due(seen: Seen) -> Decision:
        served = (seen.day - seen.first).days + 1
        return _retrain(f"{served} days are over") if served % days == 0 else _wait(f"day {served} of a timer")

    return Policy(name=name or f"every {days} days", description=f"a timer of {days} days", decide=due)


def on(days: Collection[date], name: str) -> Policy:
    """On the evening of given days."""
    chosen = frozenset(days)
    return Policy(
        name=name,
        description=f"on {len(chosen)} given days",
        decide=lambda seen: _retrain(f"{seen.day} was drawn") if seen.day in chosen else _wait("not drawn"),
    )


def drawn(first: date, last: date, retrainings: int, *, grid_days: int, draws: int, seed: int) -> list[Policy]:
    """So many retrainings at random moments among a timer's (whose versions exist), so many times.

    With fewer moments than retrainings it is all of them.
    """
    moments = [day for number, day in enumerate(days_between(first, last), start=1) if number % grid_days == 0]
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(len(moments), min(retrainings, len(moments)), replace=False) for _ in range(draws)]
    return [on({moments[place] for place in places}, f"random {number}") for number, places in enumerate(chosen, 1)]


def by_evidence(policy: RetrainPolicy, name: str = DECLARED, drifts: Drifts | None = None) -> Policy:
    """The decision of the platform itself. drifts: the verdicts of all drift policies."""

    def decided(seen: Seen) -> Decision:
        cohorts = _NO_COHORTS if policy.max_loss_ratio is None else seen.cohorts()
        ask = seen.estimate
        gain: Estimate | None = None if ask is None else lambda: ask(policy.min_gain)
        return decide(policy, cohorts, seen.past, seen.day, seen.now, seen.timezone, gain)

    known = drifts or {}
    return Policy(
        name=name,
        description=policy.description or "by late labels",
        decide=decided,
        drifts={trigger: known[trigger] for trigger in policy.triggers if trigger in known},
    )


def on_drift(name: str, drifts: Drifts, cooldown: timedelta) -> Policy:
    """On drift of the inputs alone, whatever labels say. name: of the drift policy."""
    policy = RetrainPolicy(
        description="when the inputs drift, by the drift policy",
        max_loss_ratio=None,
        triggers=(name,),
        cooldown=cooldown,
        breaker=None,
    )
    return by_evidence(policy, DRIFT, drifts)


def _retrain(reason: str) -> Decision:
    return Decision(answer="retrain", reason=reason, measures={})


def _wait(reason: str) -> Decision:
    return Decision(answer="wait", reason=reason, measures={})
