"""What one metric of a rollout has shown so far: its e-processes, both sides' counts, and what it compares with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_platform.serving.eprocess import (
    BETS,
    ODDS,
    EProcess,
    Floats,
    below,
    levels_before,
    odds_sums,
    paired_differences,
    scaled,
    weighted_differences,
)
from ml_platform.serving.recent import NOTHING_RECENT, QUANTILES, Recent, slow_sums

Kind = Literal["failures", "seconds", "bounded"]
Grown = dict[str, Any]  # the fields of an account that a batch changes
MARGIN_ON_ODDS = 1.5  # an equal canary is promoted within some 400 bad events, one half as bad again is not


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Something that is counted of each unit, from the records' column of its name.

    kind: ``failures`` (true or false), ``seconds`` (compared with the champion's recent quantiles) or ``bounded``: a
    loss or a business figure between ``low`` and ``high``.
    tolerance: a canary whose mean is that much worse still is none to roll back (bounded; in the metric's own unit).
    Pairs tell very small differences apart: give them one.
    margin: the promotion speaks against a canary that is worse by that: odds of bad or slow answers, at least 1.5 by
    default; of a bounded metric in its own unit, and it must be said.
    paired_with: the column with the champion's value of the same row, where both scored it (a shadow).
    column: of the records, if it is not called as the metric is.

    Where hardly anything fails, nobody can tell odds: count failures as ``bounded`` there, with an absolute margin.
    """

    name: str
    kind: Kind
    column: str = ""
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = False
    tolerance: float = 0.0
    margin: float | None = None
    paired_with: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be counted.

        Raises:
            ValueError: a kind that there is not, an empty range, a margin that is none or not above the tolerance.
        """
        if self.kind not in ("failures", "seconds", "bounded"):
            raise ValueError(f"metric {self.name}: its kind is failures, seconds or bounded, not {self.kind!r}")
        if self.kind != "bounded":
            below(self.odds)
            if self.paired_with or self.tolerance:
                raise ValueError(f"metric {self.name}: only a bounded metric has a tolerance or pairs")
            return
        scaled([], low=self.low, high=self.high)
        if self.margin is None or not 0 <= self.tolerance < self.margin <= self.high - self.low:
            raise ValueError(
                f"metric {self.name}: say by how much the canary may be worse and still be promoted, as a margin above "
                f"the tolerance ({self.tolerance}) and within {self.low} to {self.high}; it is {self.margin}"
            )

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return (self.column or self.name, *([self.paired_with] if self.paired_with else []))

    @property
    def odds(self) -> float:
        """The margin of failures and seconds."""
        return MARGIN_ON_ODDS if self.margin is None else self.margin

    def share(self, amount: float | None) -> float:
        """An amount in the metric's unit as a share of its range."""
        return (amount or 0.0) / (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Counted units in their order, arrays of one length. ``other``: the champion's value of the same row, or None."""

    values: Floats
    canary: NDArray[np.bool_]
    probability: Floats
    other: Floats | None = None

    def where(self, kept: ArrayLike) -> "Batch":
        """Some of them, by a mask."""
        kept = np.asarray(kept, dtype=bool)
        other = None if self.other is None else self.other[kept]
        return Batch(
            values=self.values[kept], canary=self.canary[kept], probability=self.probability[kept], other=other
        )


@dataclass(frozen=True, kw_only=True)
class Side:
    """One variant: its counted units and the sum of their values (failures: how many failed)."""

    units: int = 0
    total: float = 0.0

    def after(self, values: Floats) -> "Side":
        """With more values, added one by one: the same bits however cut up."""
        return Side(units=self.units + len(values), total=added(self.total, values))

    def merged(self, other: "Side") -> "Side":
        """Of two workers."""
        return Side(units=self.units + other.units, total=self.total + other.total)


NOBODY = Side()


def added(start: float, values: Floats) -> float:
    """The sum in the order of the values, one by one."""
    return float(np.cumsum(np.concatenate([[start], values]))[-1])


@dataclass(frozen=True, kw_only=True)
class Account:
    """A metric's state.

    rollback speaks against "no worse"; all of promotion must speak against "worse by the margin".
    recent: of seconds; mean_of: sum and number of the scaled values so far, of a bounded metric that is not paired.
    """

    rollback: EProcess
    promotion: tuple[EProcess, ...]
    canary: Side = NOBODY
    champion: Side = NOBODY
    recent: Recent = NOTHING_RECENT
    mean_of: tuple[float, int] = (0.0, 0)

    @classmethod
    def empty(cls, metric: Metric) -> Self:
        """Nothing seen."""
        if metric.kind == "bounded":
            return cls(rollback=EProcess.over(len(BETS)), promotion=(EProcess.over(len(BETS)),))
        quantiles = len(QUANTILES) if metric.kind == "seconds" else 1
        odds = EProcess.over(len(ODDS))
        return cls(rollback=EProcess.over(len(ODDS) * quantiles), promotion=(odds,) * quantiles)

    def after(self, metric: Metric, batch: Batch) -> Self:
        """With more units.

        Raises:
            ValueError: a value, or a probability, outside its range.
        """
        grown = replace(self, **_AFTER[metric.kind](self, metric, batch))
        if batch.other is not None:  # both scored every row
            sides = (self.canary.after(batch.values), self.champion.after(batch.other))
        else:
            sides = (self.canary.after(batch.values[batch.canary]), self.champion.after(batch.values[~batch.canary]))
        return replace(grown, canary=sides[0], champion=sides[1])

    def merged(self, other: Self) -> Self:
        """Of two workers with units of their own: sums and counts add.

        Its own quantiles and mean stay those of this one; only a worker that goes on counting needs them.
        """
        promotion = tuple(mine.merged(theirs) for mine, theirs in zip(self.promotion, other.promotion, strict=True))
        return replace(
            self,
            rollback=self.rollback.merged(other.rollback),
            promotion=promotion,
            canary=self.canary.merged(other.canary),
            champion=self.champion.merged(other.champion),
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, from which ``from_json`` makes the same bits again."""
        return {
            "rollback": self.rollback.as_json(),
            "promotion": [process.as_json() for process in self.promotion],
            "canary": [self.canary.units, self.canary.total],
            "champion": [self.champion.units, self.champion.total],
            "recent": self.recent.as_json(),
            "mean_of": list(self.mean_of),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What ``as_json`` gave."""
        return cls(
            rollback=EProcess.from_json(stored["rollback"]),
            promotion=tuple(EProcess.from_json(process) for process in stored["promotion"]),
            canary=Side(units=int(stored["canary"][0]), total=float(stored["canary"][1])),
            champion=Side(units=int(stored["champion"][0]), total=float(stored["champion"][1])),
            recent=Recent.from_json(stored["recent"]),
            mean_of=(float(stored["mean_of"][0]), int(stored["mean_of"][1])),
        )


def _failures(account: Account, metric: Metric, batch: Batch) -> Grown:
    if not np.isin(batch.values, (0.0, 1.0)).all():
        raise ValueError(f"metric {metric.name}: whether a unit failed is true or false")
    bad = batch.where(batch.values > 0)
    return _odds(account, metric, lambda odds, against: _of_failures(bad, odds, against))


def _of_failures(bad: Batch, odds: Floats, against: float) -> Floats:
    ones = np.ones(len(bad.values))
    return odds_sums(bad.canary, ones, bad.probability, odds=odds, against=against)[:, None]


def _seconds(account: Account, metric: Metric, batch: Batch) -> Grown:
    if not (np.isfinite(batch.values) & (batch.values >= 0)).all():
        raise ValueError(f"metric {metric.name}: seconds are numbers from 0 on; leave out answers that have none")
    recent, compared = account.recent.after(batch.values, ~batch.canary)
    slow = (batch.values[:, None] > compared).any(axis=1)
    some, against_these = batch.where(slow), compared[slow]

    def sums(odds: Floats, against: float) -> Floats:
        return slow_sums(some.values, some.canary, some.probability, against_these, odds=odds, against=against)

    return {**_odds(account, metric, sums), "recent": recent}


def _odds(account: Account, metric: Metric, sums: Callable[[Floats, float], Floats]) -> Grown:
    """With what ``sums(odds, against)`` gives: (events, quantiles, odds)."""
    worse, margin = sums(ODDS, 1.0), sums(below(metric.odds), metric.odds)
    # A mixture over all quantiles' bets is the average of their e-values.
    rollback = account.rollback.after(worse.reshape(len(worse), worse.shape[1] * worse.shape[2]))
    promotion = tuple(process.after(margin[:, place]) for place, process in enumerate(account.promotion))
    return {"rollback": rollback, "promotion": promotion}


def _bounded(account: Account, metric: Metric, batch: Batch) -> Grown:
    losses = _as_losses(metric, batch.values)
    mean_of = account.mean_of
    if batch.other is not None:
        found = paired_differences(losses, _as_losses(metric, batch.other))
    else:
        levels = levels_before(losses, *mean_of)
        mean_of = (added(mean_of[0], losses), mean_of[1] + len(losses))
        both = (batch.probability > 0) & (batch.probability < 1)  # else there is nothing to compare with
        found = weighted_differences(losses[both], batch.canary[both], batch.probability[both], levels[both])
    return {
        "rollback": account.rollback.after(found.against_at_most(metric.share(metric.tolerance))),
        "promotion": (account.promotion[0].after(found.against_at_least(metric.share(metric.margin))),),
        "mean_of": mean_of,
    }


def _as_losses(metric: Metric, values: ArrayLike) -> Floats:
    try:
        return scaled(values, low=metric.low, high=metric.high, higher_is_better=metric.higher_is_better)
    except ValueError as error:
        raise ValueError(f"metric {metric.name}: {error}") from error


_AFTER = {"failures": _failures, "seconds": _seconds, "bounded": _bounded}
