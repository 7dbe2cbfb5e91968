"""When to train again: the policies that a backtest sets beside each other."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from ml_platform.decisions.retraining import Decision, Served, decide
from ml_platform.monitoring.performance import newest
from ml_platform.spec import RetrainPolicy, Verdict
from ml_platform.spec.calendar import days_between

NEVER, DECLARED, DRIFT = "never", "declared", "drift"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a policy may look at when ``day`` has ended. first: the replay's first day. cohorts: as the platform's
    performance table, computed when it is looked at."""

    first: date
    day: date
    now: datetime
    champion: Served
    cohorts: Callable[[], pl.DataFrame]


Decide = Callable[[Seen], Decision]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Its name in the table, what it does in words, and its decision at the end of a day."""

    name: str
    description: str
    decide: Decide


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


def on_drift(verdicts: Mapping[date, Verdict], cooldown: timedelta) -> Policy:
    """On each day whose inputs drifted, by the verdicts of the platform's drift policy, after a cooldown."""

    def drifted(seen: Seen) -> Decision:
        found = verdicts[seen.day]
        if found.state != "fail":
            return _wait(found.reason)
        rested = seen.now - seen.champion.last_training_at >= cooldown
        return _retrain(found.reason) if rested else _wait(f"{found.reason}; within the cooldown")

    return Policy(name=DRIFT, description="when the inputs drift, by the drift policy", decide=drifted)


def by_evidence(policy: RetrainPolicy, name: str = DECLARED) -> Policy:
    """The decision of the platform itself."""
    return Policy(
        name=name,
        description=policy.description or "by late labels",
        decide=lambda seen: decide(policy, newest(seen.cohorts()), seen.champion, seen.day, seen.now),
    )


def _retrain(reason: str) -> Decision:
    return Decision(answer="retrain", reason=reason, measures={})


def _wait(reason: str) -> Decision:
    return Decision(answer="wait", reason=reason, measures={})
