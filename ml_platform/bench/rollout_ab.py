"""Simulated A/B tests for `ml-platform bench rollout`: does an interval that is watched ever miss the difference?"""

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from ml_platform.serving.ab_interval import Sums, log_evidence, running_sums, split_log_e, sums_of
from ml_platform.serving.eprocess import Floats, levels_before, log_bar, weighted_differences

_RUNS_AT_ONCE = 100
_UNITS = 3000
_PIECE = 500  # units at once: bounds the memory to some 50 MB
_CASES = {
    "A/A, binary 5 %, half": (0.05, 0.05, 0.5, False),
    "A/A, skewed, half": (1.0, 1.0, 0.5, True),
    "A/A, skewed, one in ten treated": (1.0, 1.0, 0.1, True),
    "A/B, binary 5 % to 8 %, half": (0.05, 0.08, 0.5, False),
    "A/B, skewed +30 %, half": (1.0, 1.3, 0.5, True),
}
_CUT = 200.0  # the declared range of the skewed metric ends there; a mean of 3, a standard deviation of 9


def interval_misses(runs: int, alpha: float, chance: Generator) -> Iterator[tuple[str, Floats]]:
    """Of each case: (runs,) whether the interval left the true difference out after any of the units."""
    for name, (control, treatment, share, skewed) in _CASES.items():
        true = _mean(treatment, skewed) - _mean(control, skewed)
        missed = [
            _missed(control, treatment, share, skewed, true, min(_RUNS_AT_ONCE, runs - start), alpha, chance)
            for start in range(0, runs, _RUNS_AT_ONCE)
        ]
        yield name, np.concatenate(missed)


def _missed(
    control: float,
    treatment: float,
    share: float,
    skewed: bool,
    true: float,
    runs: int,
    alpha: float,
    chance: Generator,
) -> Floats:
    missed, total = np.zeros(runs, dtype=bool), np.zeros(runs)
    sums = sums_of(0.0, 0.0, 0.0)
    for place in range(0, _UNITS, _PIECE):
        treated = chance.random((runs, _PIECE)) < share
        values = _draw(np.where(treated, treatment, control), skewed, chance)
        found = weighted_differences(values, treated, np.array([share]), levels_before(values, total, place))
        running = running_sums(found, sums)
        # The interval leaves a value out just where one of the two reaches its bar (a test says so).
        both = np.maximum(*log_evidence(running, true))
        missed |= (both >= log_bar(alpha) + np.log(2)).any(axis=1)
        total += values.sum(axis=1)
        sums = Sums(scaled=running.scaled[:, -1], weight=running.weight[:, -1], spread=running.spread[:, -1])
    return missed.astype(np.float64)


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


def split_alarms(runs: int, chance: Generator) -> Iterator[tuple[str, Floats, bool]]:
    """Of each case: (runs,) whether the split was found wrong after any of 10,000 units, and whether it was right."""
    units = 10_000
    for name, declared, share in (
        ("right, half and half", 0.5, 0.5),
        ("right, one in ten", 0.1, 0.1),
        ("one treated unit in ten lost, of half and half", 0.5, 0.45 / 0.95),
    ):
        alarmed = []
        for start in range(0, runs, _RUNS_AT_ONCE):
            treated = np.cumsum(chance.random((min(_RUNS_AT_ONCE, runs - start), units)) < share, axis=1)
            counts = np.stack([np.arange(1, units + 1) - treated, treated], axis=-1)
            alarmed.append((split_log_e(counts, [1 - declared, declared]) >= log_bar(0.05)).any(axis=1))
        yield name, np.concatenate(alarmed).astype(np.float64), declared == share
