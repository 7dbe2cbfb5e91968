"""Simulated A/B tests for `ml-platform bench rollout`: does an interval that is watched ever miss the difference?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ml_platform.bench.rollout_runs import reaches
from ml_platform.serving.ab_interval import NO_SUMS, bets_on, owed, split_log_e
from ml_platform.serving.eprocess import Differences, Floats, levels_before, log_bar, weighted_differences

_RUNS_AT_ONCE = 100
_UNITS = 2500
_PIECE = 100  # units between two looks at which runs that have missed are left out: 5 MB of log-sums a side
_WIDTHS = 2  # of each block of runs the interval itself is made, at the end
_LEAST = 100  # units before anybody would trust a normal interval
Case = tuple[float, float, float, bool]  # level of control and of treatment, share of treatment, whether skewed
_CASES: dict[str, Case] = {
    "A/A, binary 5 %, half": (0.05, 0.05, 0.5, False),
    "A/A, skewed, half": (1.0, 1.0, 0.5, True),
    "A/A, skewed, one in ten treated": (1.0, 1.0, 0.1, True),
    "A/B, binary 5 % to 8 %, half": (0.05, 0.08, 0.5, False),
    "A/B, skewed +30 %, half": (1.0, 1.3, 0.5, True),
}
_CUT = 200.0  # the declared range of the skewed metric ends there; a mean of 3, a standard deviation of 9


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Simulated tests, arrays (runs,): whether an interval ever left the truth out, and ours over the other's width."""

    name: str
    missed: NDArray[np.bool_]
    missed_by_normal: NDArray[np.bool_]
    width_ratio: Floats


def watched_intervals(runs: int, alpha: float, chance: Generator) -> Iterator[Watched]:
    """Each case, looked at after every unit (the normal interval from the hundredth on)."""
    for name, case in _CASES.items():
        parts = [
            _watched(name, case, min(_RUNS_AT_ONCE, runs - start), alpha, chance)
            for start in range(0, runs, _RUNS_AT_ONCE)
        ]
        yield Watched(
            name=name,
            missed=np.concatenate([part.missed for part in parts]),
            missed_by_normal=np.concatenate([part.missed_by_normal for part in parts]),
            width_ratio=np.concatenate([part.width_ratio for part in parts]),
        )


def _watched(name: str, case: Case, runs: int, alpha: float, chance: Generator) -> Watched:
    control, treatment, share, skewed = case
    true = _mean(treatment, skewed) - _mean(control, skewed)
    treated = chance.random((runs, _UNITS)) < share
    values = _draw(np.where(treated, treatment, control), skewed, chance)
    difference, half = _normal(values, treated)
    found = weighted_differences(values, treated, np.array([share]), levels_before(values))
    some = range(min(_WIDTHS, runs))
    widths = [np.ptp(NO_SUMS.after(bets_on(_part(found, run, slice(None)))).interval(alpha)) for run in some]
    return Watched(
        name=name,
        missed=left_out(found, true, alpha),
        missed_by_normal=np.asarray((np.abs(difference - true) > half)[:, _LEAST:].any(axis=1)),
        width_ratio=np.array(widths) / (2 * half[some, -1]),
    )


def _part(found: Differences, runs: int | NDArray[np.int64], units: slice) -> Differences:
    return Differences(
        found=found.found[runs, units], lowest=found.lowest[runs, units], highest=found.highest[runs, units]
    )


def left_out(found: Differences, true: float, alpha: float) -> NDArray[np.bool_]:
    """(runs,): whether an end of the interval lay beyond the truth after any unit, for differences (runs, n).

    That is where the evidence against the truth, on one of the two sides, reaches its bar (tested).
    """
    runs, units = found.found.shape
    missed, going = np.zeros(runs, dtype=bool), np.arange(runs)
    sums = np.zeros((2, runs, 1))
    for start in range(0, units, _PIECE):
        bets = bets_on(_part(found, going, slice(start, start + _PIECE)))
        won = bets.more - owed(bets.more_reach, true), bets.less - owed(bets.less_reach, -true)
        run = np.stack([sums[side][:, None] + np.cumsum(won[side], axis=1) for side in (0, 1)])
        ends = reaches(run, alpha / 2).any(axis=(0, 2))
        missed[going[ends]] = True
        going, sums = going[~ends], run[:, ~ends, -1]
    return missed


def _normal(values: Floats, treated: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """(runs, n): the difference of the means so far, and half its 95 % interval as if this were the only look."""
    means, variances = [], []
    for side in (treated, ~treated):
        count = np.maximum(np.cumsum(side, axis=1), 1)
        mean = np.cumsum(values * side, axis=1) / count
        means.append(mean)
        variances.append(np.maximum(np.cumsum(values**2 * side, axis=1) / count - mean**2, 0) / count)
    return means[0] - means[1], 1.96 * np.sqrt(variances[0] + variances[1])


def _draw(level: Floats, skewed: bool, chance: Generator) -> Floats:
    """Values in [0, 1]: ones with that probability; or lognormal figures with that median, cut and scaled."""
    if not skewed:
        return (chance.random(level.shape) < level).astype(np.float64)
    return np.minimum(level * np.exp(1.5 * chance.standard_normal(level.shape)), _CUT) / _CUT


def _mean(level: float, skewed: bool) -> float:
    """The true mean of the values, of a skewed metric by integrating over a fine grid of normal quantiles."""
    if not skewed:
        return level
    grid = np.linspace(-10, 10, 400_001)
    weights = np.exp(-(grid**2) / 2)
    values = np.minimum(level * np.exp(1.5 * grid), _CUT) / _CUT
    return float((values * weights).sum() / weights.sum())


def split_alarms(runs: int, chance: Generator) -> Iterator[tuple[str, NDArray[np.bool_], bool]]:
    """Of each case: (runs,) whether the split was found wrong at any look, and whether it was right.

    A right split is looked at after each of 3,000 units, a wrong one after every 50 of 10,000.
    """
    for name, declared, share, units, every in (
        ("right, half and half", 0.5, 0.5, 3000, 1),
        ("right, one in ten", 0.1, 0.1, 3000, 1),
        ("one treated unit in ten lost, of half and half", 0.5, 0.45 / 0.95, 10_000, 50),
    ):
        alarmed = []
        for start in range(0, runs, _RUNS_AT_ONCE):
            treated = np.cumsum(chance.random((min(_RUNS_AT_ONCE, runs - start), units)) < share, axis=1)
            counts = np.stack([np.arange(1, units + 1) - treated, treated], axis=-1)[:, every - 1 :: every]
            alarmed.append((split_log_e(counts, [1 - declared, declared]) >= log_bar(0.05)).any(axis=1))
        yield name, np.concatenate(alarmed), declared == share
