"""What others do with the same simulated rollouts: pooled tests of the two error rates, and one test per interval.

Each gives for every run the cell in which it rolls back. They look after every 1,000 requests, of both sides together,
and are one-sided at a risk of 5 % where they have a side.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ml_platform.bench.rollout_runs import CELL, NEVER, Ints, Runs
from ml_platform.serving.eprocess import Floats

LOOK = 10  # cells between two looks
_ONE_SIDED, _TWO_SIDED = 1.6449, 1.9600  # normal quantiles at 95 % and 97.5 %
_EFFECT = 0.005  # mSPRT: spread of the differences it expects, half the base error rate
_INTERVAL = 30  # looks that make one interval of the canary analysis: a rate of each is a point of its two samples
_KAYENTA = 2.3263  # its default confidence level of 98 %, two-sided
_KAYENTA_TOLERANCE = 0.25  # its default: a shift below a quarter of the champion's median is none


def _counts(runs: Runs) -> tuple[Floats, Floats, Floats, Floats]:
    """At each look, so far: canary's bad and all, champion's bad and all."""
    at = np.arange(LOOK - 1, runs.all_bad.shape[1], LOOK)
    bad, asked = runs.canary_bad[:, at].astype(float), runs.canary_requests[:, at].astype(float)
    return bad, asked, runs.all_bad[:, at] - bad, (at + 1.0) * CELL - asked


def _pooled(runs: Runs) -> tuple[Floats, Floats]:
    """At each look: the difference of the two rates, and its variance if both are one rate."""
    bad, asked, theirs, of_them = _counts(runs)
    rate = (bad + theirs) / (asked + of_them)
    sides = 1 / np.maximum(asked, 1) + 1 / np.maximum(of_them, 1)
    return bad / np.maximum(asked, 1) - theirs / np.maximum(of_them, 1), np.maximum(rate * (1 - rate) * sides, 1e-12)


def z_at_every_look(runs: Runs) -> Ints:
    """Two proportions, at every look as if it were the only one."""
    difference, variance = _pooled(runs)
    return _first(difference / np.sqrt(variance) >= _ONE_SIDED)


def z_once(runs: Runs) -> Ints:
    """Two proportions, once, at the end."""
    difference, variance = _pooled(runs)
    reached = difference / np.sqrt(variance) >= _ONE_SIDED
    reached[:, :-1] = False
    return _first(reached)


def obrien_fleming(runs: Runs) -> Ints:
    """O'Brien & Fleming 1979, for any number of looks: z at share t of the requests at least 1.96 / sqrt(t)."""
    difference, variance = _pooled(runs)
    share = np.arange(1, difference.shape[1] + 1) / difference.shape[1]
    return _first(difference / np.sqrt(variance) >= _TWO_SIDED / np.sqrt(share))


def pooled_msprt(runs: Runs) -> Ints:
    """Johari et al. 2017: a normal mixture of differences of the pooled rates, where the canary's is the higher one."""
    difference, variance = _pooled(runs)
    wider = variance + _EFFECT**2
    log = 0.5 * np.log(variance / wider) + 0.5 * _EFFECT**2 * difference**2 / (variance * wider)
    return _first((difference > 0) & (log >= np.log(1 / 0.05)))


def mann_whitney_per_interval(runs: Runs) -> Ints:
    """After each 30 looks: are the canary's 30 rates above the champion's 30 by more than Kayenta's tolerance?"""
    bad, asked, theirs, of_them = (np.diff(each, axis=1, prepend=0) for each in _counts(runs))
    mine, other = bad / np.maximum(asked, 1), theirs / np.maximum(of_them, 1)
    reached = np.zeros(mine.shape, dtype=bool)
    for stop in range(_INTERVAL, mine.shape[1] + 1, _INTERVAL):
        here = slice(stop - _INTERVAL, stop)
        shifted = other[:, here] * (1 + _KAYENTA_TOLERANCE)
        reached[:, stop - 1] = _mann_whitney(mine[:, here], shifted) >= _KAYENTA
    return _first(reached)


def _mann_whitney(mine: Floats, other: Floats) -> Floats:
    """(runs,): the standardized U of two samples (runs, n), ties counting half; the variance is that without ties."""
    compared = np.sign(mine[:, :, None] - other[:, None, :])
    u, n = 0.5 * (compared + 1).sum(axis=(1, 2)), mine.shape[1]
    standardized: Floats = (u - n * n / 2) / np.sqrt(n * n * (2 * n + 1) / 12)
    return standardized


def _first(reached: NDArray[np.bool_]) -> Ints:
    cells = reached.argmax(axis=1) * LOOK + LOOK - 1
    return np.where(reached.any(axis=1), cells, NEVER)


PEERS: dict[str, Callable[[Runs], Ints]] = {
    "z-test at every look": z_at_every_look,
    "O'Brien-Fleming": obrien_fleming,
    "pooled mSPRT": pooled_msprt,
    "z-test once, at the end": z_once,
    "Mann-Whitney per interval": mann_whitney_per_interval,
}
