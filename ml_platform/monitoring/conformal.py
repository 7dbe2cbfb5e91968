"""A threshold that warns within a declared budget: adaptive conformal inference on the scores of closed periods.

The threshold is the conformal quantile of the scores of earlier periods (Vovk et al. 2005) at a level that moves: after
a warning it asks for more, after a quiet period for less (Gibbs & Candès 2021, "Adaptive conformal inference under
distribution shift"). So the share of warning periods tends to the budget whatever the scores do: after T periods it is
off by at most (max(share, 1 - share) + step) / (step * T), their Proposition 4.1. With exchangeable scores it is
right at once.

A period is judged as its days come: its score is the largest of its days so far, the threshold is fixed before its
first day, and it warns once. So a weekly budget is kept by verdicts that come by the day.

What follows from it: a budget is spent on the most unusual periods, whether or not anything is wrong. And a change that
stays is told a few times and then becomes usual; what must not be missed is for the sharp rule.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from ml_platform.spec import Verdict
from ml_platform.spec.alarms import AlarmBudget


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What must be kept from day to day; equal days give equal states.

    day: the last one taken in. highest: the largest score of its period so far, None where there was none yet.
    closed: scores of the periods before, the oldest first. level: the share asked for now; None: the budget's own.
    """

    day: date | None = None
    highest: float | None = None
    closed: tuple[float, ...] = ()
    level: float | None = None

    def as_record(self) -> dict[str, Any]:
        """Plain values, for a row of a table."""
        return {**asdict(self), "closed": list(self.closed)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Watch":
        """Back from ``as_record``."""
        kept = {name: record[name] for name in ("day", "highest", "level")}
        return cls(**kept, closed=tuple(record["closed"]))


def threshold(watch: Watch, budget: AlarmBudget) -> float | None:
    """What the score of the period after the closed ones must exceed to warn; None: too few have closed.

    Between two order statistics it is interpolated. Infinite where the level asks for more than so few periods can
    tell; minus infinite where it asks for a warning whatever happens.
    """
    count = len(watch.closed)
    if count < budget.min_periods:
        return None
    place = (count + 1) * (1 - _level(watch, budget))
    if not 1 <= place <= count:
        return math.inf if place > count else -math.inf
    ordered, below = sorted(watch.closed), math.floor(place)
    upper = ordered[min(below, count - 1)]
    # Not a + (b - a) * x: that can exceed b by the finest bit, and equal scores would warn.
    return ordered[below - 1] if below == place else min(upper, _between(ordered[below - 1], upper, place - below))


def _between(low: float, high: float, part: float) -> float:
    return low * (1 - part) + high * part


def advance(watch: Watch, day: date, score: float | None, budget: AlarmBudget) -> tuple[Watch, Verdict]:
    """Take in one day.

    score: the day's largest standardised distance, at least 0; None, or no finite number: nothing could be compared.

    Returns:
        The state after the day, and the verdict on it: ``warn`` where its score exceeds the threshold (measure
        ``first``: 1 on the first such day of its period, which alone is worth a message). A day that is not after the
        last one is *unknown* and changes nothing.
    """
    if watch.day is not None and day <= watch.day:
        return watch, Verdict.unknown(f"{day} comes after {watch.day}, which was taken in already")
    begun = _closed_before(watch, day, budget)
    if score is None or not math.isfinite(score):
        return replace(begun, day=day), Verdict.unknown(f"{day}: nothing could be compared")
    highest = score if begun.highest is None else max(score, begun.highest)
    return replace(begun, day=day, highest=highest), _verdict(begun, day, score, budget)


def followed(scores: Iterable[tuple[date, float | None]], budget: AlarmBudget) -> list[tuple[Watch, Verdict]]:
    """Every day of a history in turn, from nothing."""
    watch, found = Watch(), []
    for day, score in scores:
        watch, verdict = advance(watch, day, score, budget)
        found.append((watch, verdict))
    return found


def _period(day: date, budget: AlarmBudget) -> int:
    return (day.toordinal() - 1) // budget.period_days  # the first day that there is was a Monday


def _level(watch: Watch, budget: AlarmBudget) -> float:
    return budget.share if watch.level is None else watch.level


def _closed_before(watch: Watch, day: date, budget: AlarmBudget) -> Watch:
    """The state before the day's period begins or goes on: an earlier period is closed, and the level follows."""
    if watch.day is None or _period(day, budget) == _period(watch.day, budget):
        return watch
    if watch.highest is None:
        return watch  # nothing was compared in that period: it spent nothing and says nothing
    asked = threshold(watch, budget)
    closed = (*watch.closed, watch.highest)[-budget.memory :]
    if asked is None:
        return replace(watch, highest=None, closed=closed)
    warned = _exceeds(watch.highest, asked)
    # A stream in which nothing ever moves must not save up for a year of warnings.
    level = min(_level(watch, budget) + budget.step * (budget.share - warned), 1 + budget.step * budget.share)
    return replace(watch, highest=None, closed=closed, level=level)


def _exceeds(score: float, asked: float) -> bool:
    return score > max(asked, 0.0)  # where nothing moved there is nothing to warn of


def _verdict(begun: Watch, day: date, score: float, budget: AlarmBudget) -> Verdict:
    asked = threshold(begun, budget)
    if asked is None:
        reason = f"{len(begun.closed)} periods have closed before {day}; {budget.min_periods} are needed"
        return Verdict.unknown(reason, score=score, periods=len(begun.closed))
    measures = {"score": score, "threshold": asked, "level": _level(begun, budget), "periods": len(begun.closed)}
    told = f"{day}: {score:.2f} times the usual largest odds"
    budgeted = f"{budget.share:.0%} of the periods may warn"
    if not _exceeds(score, asked):
        return Verdict(state="pass", reason=f"{told}, not above {asked:.2f} ({budgeted})", measures=measures)
    first = begun.highest is None or not _exceeds(begun.highest, asked)
    again = "" if first else "; this period has warned already"
    measures["first"] = int(first)
    return Verdict(state="warn", reason=f"{told}, above {asked:.2f} ({budgeted}){again}", measures=measures)
