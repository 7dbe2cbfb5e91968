"""Intervals of measures, bootstrapped over whole days: rows of a day share their weather and their traffic.

Every measure is a function of how often each day was drawn (Efron & Tibshirani 1993, the cluster bootstrap). What a
day adds to a measure is summed up once, so a resample costs what the days cost, not what the rows cost, and is equal
to the measure of the drawn days' rows put together. The AUC is one, too: of its (1, 0) pairs it is enough to know how
many are in order between each two days.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_platform import metrics
from ml_platform.spec import TooFewLabels

Floats = NDArray[np.float64]
Measure = Callable[[Floats], Floats]
_BINS = 10
_BLOCK = 64  # resamples at once where a curve of all rows is needed: a few megabytes


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measure of all rows, with the 2.5 and 97.5 % quantiles of its resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How often each day was drawn: ``counts`` of shape (resamples, days); ``day`` is each row's place among them."""

    counts: Floats
    day: NDArray[np.int64]

    @property
    def days(self) -> int:
        """How many there are."""
        return int(self.counts.shape[1])

    def summed(self, values: Floats) -> Floats:
        """(days,): the sum of a row's values by day."""
        sums: Floats = np.bincount(self.day, weights=values, minlength=self.days).astype(np.float64)
        return sums


def draw(days: ArrayLike, *, seed: int, resamples: int) -> Draws:
    """Draw as many days as there are, with replacement, ``resamples`` times. days: of each row.

    Raises:
        TooFewLabels: there are no rows, or they all fall on one day.
    """
    names, day = np.unique(np.asarray(days), return_inverse=True)
    if names.size < 2:
        raise TooFewLabels(
            f"all {day.size} labelled rows fall on one day, so there is no spread over days to judge by; "
            f"wait for the labels of another day"
        )
    drawn = np.random.default_rng(seed).integers(0, names.size, (resamples, names.size))
    places = drawn + names.size * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=names.size * resamples).reshape(resamples, names.size)
    return Draws(counts=counts.astype(np.float64), day=day.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A model's measures of all rows, and of each resample: arrays of one length, of the same days for one seed."""

    values: Mapping[str, float]
    drawn: Mapping[str, Floats]

    def intervals(self) -> dict[str, Interval]:
        """Each measure with its interval."""
        return {name: _interval(value, self.drawn[name]) for name, value in self.values.items()}

    def less(self, other: "Resampled") -> dict[str, Interval]:
        """Its measures less another model's on the same rows of the same drawn days."""
        return {
            name: _interval(value - other.values[name], self.drawn[name] - other.drawn[name])
            for name, value in self.values.items()
        }


def resample(
    labels: ArrayLike, probabilities: ArrayLike, days: ArrayLike, *, seed: int, resamples: int = 1000
) -> Resampled:
    """Each of ``metrics.measures``, of all rows and of drawn days. Resamples of one class only are left out.

    Raises:
        TooFewLabels: one day only, or one class only.
        ValueError: labels that are not 0 or 1, or numbers that are no probabilities (NaN included).
    """
    values = metrics.measures(labels, probabilities)
    truth, given = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    draws = draw(days, seed=seed, resamples=resamples)
    counts = draws.counts[of_both_classes(truth, draws)]
    found = {name: measure(counts) for name, measure in by_day(truth, given, draws).items()}
    return Resampled(values=values, drawn=found)


def of_both_classes(truth: Floats, draws: Draws) -> NDArray[np.bool_]:
    """Which resamples hold ones and zeros."""
    return (draws.counts @ draws.summed(truth) > 0) & (draws.counts @ draws.summed(1 - truth) > 0)


def by_day(truth: Floats, given: Floats, draws: Draws) -> dict[str, Measure]:
    """Each of ``metrics.measures`` as a function of counts of days, (resamples, days) -> (resamples,).

    The counts must take rows of both classes.
    """
    rows = draws.summed(np.ones_like(truth))
    return {
        "auc": _auc(truth, given, draws),
        "log_loss": _mean(draws.summed(metrics.row_losses(truth, given)), rows),
        "pr_auc": _pr_auc(truth, given, draws),
        "brier": _mean(draws.summed((truth - given) ** 2), rows),
        "calibration_gap": lambda counts: np.abs(_mean(draws.summed(given - truth), rows)(counts)),
        "calibration_error": _calibration_error(truth, given, draws),
    }


def paired_gains(differences: ArrayLike, members: NDArray[np.bool_], draws: Draws) -> tuple[Floats, Floats]:
    """Mean difference of each group's rows: of all rows (groups,), and of each resample (resamples, groups).

    differences: of each row. members: (rows, groups), a row may be in several. NaN where a resample holds no row of it.
    """
    of_rows = np.asarray(differences, dtype=np.float64)
    sums = np.stack([draws.summed(of_rows * group) for group in members.T], axis=1)
    rows = np.stack([draws.summed(group.astype(np.float64)) for group in members.T], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums.sum(axis=0) / rows.sum(axis=0), (draws.counts @ sums) / (draws.counts @ rows)


def _interval(value: float, resampled: Floats) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(value=value, low=float(low), high=float(high))


def _mean(sums: Floats, rows: Floats) -> Measure:
    return lambda counts: (counts @ sums) / (counts @ rows)


def _auc(truth: Floats, given: Floats, draws: Draws) -> Measure:
    """Of each pair of days: how many ones of the first stand above zeros of the second, a tie counting half."""
    ordered = np.zeros((draws.days, draws.days))
    positive = truth == 1
    scores, day = given[positive], draws.day[positive]
    for other in range(draws.days):
        zeros = np.sort(given[~positive & (draws.day == other)])
        below = (np.searchsorted(zeros, scores, "left") + np.searchsorted(zeros, scores, "right")) / 2
        ordered[:, other] = np.bincount(day, weights=below, minlength=draws.days)
    ones, zeros_of = draws.summed(truth), draws.summed(1 - truth)
    return lambda counts: ((counts @ ordered) * counts).sum(axis=1) / ((counts @ ones) * (counts @ zeros_of))


def _pr_auc(truth: Floats, given: Floats, draws: Draws) -> Measure:
    """The step curve of each resample; it rises only at probabilities that a one has."""
    values, level = np.unique(-given, return_inverse=True)
    shape = (draws.days, values.size)
    rows = np.bincount(draws.day * values.size + level, minlength=draws.days * values.size).reshape(shape)
    ones = np.bincount(draws.day * values.size + level, weights=truth, minlength=rows.size).reshape(shape)
    rises = ones.any(axis=0)
    # Of each day, at each such probability: its ones, and all ones and rows from the highest down to there.
    added, hits, taken = ones[:, rises], np.cumsum(ones, axis=1)[:, rises], np.cumsum(rows, axis=1)[:, rises]

    def measure(counts: Floats) -> Floats:
        found = []
        for block in np.array_split(counts, max(1, -(-len(counts) // _BLOCK))):
            # Where no row was taken yet, nothing was added either.
            precision = (block @ hits) / np.maximum(block @ taken, 1)
            found.append(((block @ added) * precision).sum(axis=1) / (block @ hits[:, -1]))
        return np.concatenate(found)

    return measure


def _calibration_error(truth: Floats, given: Floats, draws: Draws) -> Measure:
    """Over the bins of all rows, which stay where they are."""
    placed = draws.day * _BINS + metrics.equal_bins(given, _BINS)
    gaps = np.bincount(placed, weights=given - truth, minlength=draws.days * _BINS).reshape(draws.days, _BINS)
    rows = draws.summed(np.ones_like(truth))
    return lambda counts: np.abs(counts @ gaps).sum(axis=1) / (counts @ rows)
