"""Always-valid intervals of a difference of means, and a check of the split, that may be looked at after every unit.

Both are exact at every number of units: nothing is normal "in the limit", so they hold for skewed metrics, too.

The interval inverts empirical-Bernstein e-processes (Howard, Ramdas, McAuliffe & Sekhon 2021; Waudby-Smith & Ramdas
2024, theorem 2): for a bet g in (0, 1) and a difference d that lies at most c below the guess made before it,
``exp(g (d - mean) / c - psi(g) ((d - guess) / c)^2)``, with ``psi(g) = -log(1 - g) - g``, is one factor of one. The
mixture over a grid of bets needs three sums of all units, which is the whole state; they add across workers.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_platform.serving.eprocess import Differences, Floats, log_bar, log_mean

_BETS: Floats = np.geomspace(5e-4, 0.9, 40)
_COSTS: Floats = -np.log1p(-_BETS) - _BETS
_HALVINGS = 50  # of an interval of length 2: below what a float tells apart
_PRIOR_UNITS = 100.0  # how sure the split's check is beforehand of the declared split: finds 2 points of 10,000 units


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over units, floats or arrays of one shape: of d / c, of 1 / c, and of ((d - guess) / c) squared."""

    scaled: Floats
    weight: Floats
    spread: Floats

    def merged(self, other: Self) -> Self:
        """Of two workers."""
        return type(self)(
            scaled=self.scaled + other.scaled, weight=self.weight + other.weight, spread=self.spread + other.spread
        )

    def at(self, place: int | NDArray[np.int64]) -> Self:
        """Those at a place, or at some places, of the arrays."""
        return type(self)(
            scaled=np.asarray(self.scaled[place]),
            weight=np.asarray(self.weight[place]),
            spread=np.asarray(self.spread[place]),
        )


def sums_of(scaled: float, weight: float, spread: float) -> Sums:
    """Of plain numbers."""
    return Sums(scaled=np.asarray(scaled), weight=np.asarray(weight), spread=np.asarray(spread))


NO_SUMS = sums_of(0.0, 0.0, 0.0)


def running_sums(differences: Differences, before: Sums = NO_SUMS) -> Sums:
    """The sums after each of the differences (..., n), begun with those ``before`` (...); arrays (..., n).

    A unit's guess is the weighted mean of the differences before it.
    """
    # c must be known before the unit and hold for the guess, which is kept within a quarter of what is possible.
    highest, lowest = np.broadcast_arrays(differences.highest, differences.lowest, subok=False)
    reach = 1.25 * np.maximum(highest, -lowest)
    scaled = _running(differences.found / reach, before.scaled)
    weight = _running(np.broadcast_to(1 / reach, differences.found.shape), before.weight)
    earlier = _shifted(scaled, before.scaled), _shifted(weight, before.weight)
    guess = np.clip(earlier[0] / np.maximum(earlier[1], 1.0), -reach / 5, reach / 5)
    spread = _running(((differences.found - guess) / reach) ** 2, before.spread)
    return Sums(scaled=scaled, weight=weight, spread=spread)


def log_evidence(sums: Sums, mean: ArrayLike) -> tuple[Floats, Floats]:
    """(...): log E against "the difference is at most ``mean``", and against "at least"."""
    off = (sums.scaled - np.asarray(mean) * sums.weight)[..., None] * _BETS
    cost = sums.spread[..., None] * _COSTS
    return log_mean(off - cost), log_mean(-off - cost)


def interval(sums: Sums, alpha: float) -> tuple[Floats, Floats]:
    """(low, high) of arrays (...): all differences in [-1, 1] that neither side's evidence speaks against.

    It ever misses the true difference with probability at most alpha, however often it is looked at.

    Raises:
        ValueError: an alpha outside (0, 1).
    """
    bar = log_bar(alpha) + np.log(2)  # half the risk for each end
    ends = []
    for side, sign in ((0, 1.0), (1, -1.0)):
        # Evidence that it is above a value falls as the value rises, so halving finds where it is the bar.
        refused, kept = np.full(np.shape(sums.scaled), -sign), np.full(np.shape(sums.scaled), sign)
        for _ in range(_HALVINGS):
            middle = (refused + kept) / 2
            above = log_evidence(sums, middle)[side] >= bar
            refused, kept = np.where(above, middle, refused), np.where(above, kept, middle)
        ends.append(refused)
    return ends[0], ends[1]


def split_log_e(counts: ArrayLike, shares: ArrayLike) -> Floats:
    """(...): log E against "units go to the variants with these shares", of counts (..., k) and shares (..., k).

    A multinomial e-process (Lindon & Malek 2022) whose alternative is a Dirichlet mixture around the declared shares.
    Of stages with other shares the logarithms add.

    Raises:
        ValueError: shares that are not above 0 or do not add up to 1, or counts below 0.
    """
    found, expected = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if not ((expected > 0).all() and np.allclose(expected.sum(axis=-1), 1, atol=1e-9)):
        raise ValueError(f"the shares of a split must be above 0 and add up to 1, unlike {expected.tolist()}")
    if not (found >= 0).all():
        raise ValueError("a variant cannot have fewer than 0 units")
    prior = _PRIOR_UNITS * expected
    mixed = (log_gamma(prior + found) - log_gamma(prior) - found * np.log(expected)).sum(axis=-1)
    total = np.asarray(found.sum(axis=-1))
    evidence: Floats = mixed - log_gamma(total + _PRIOR_UNITS) + log_gamma(np.full(total.shape, _PRIOR_UNITS))
    return evidence


def log_gamma(values: Floats) -> Floats:
    """Of numbers from 1e-30 to 1e30, to 1e-12 of its size or of 1: Stirling's series eight places on, and back."""
    further = values + 8
    series = 1 / (12 * further) - 1 / (360 * further**3) + 1 / (1260 * further**5) - 1 / (1680 * further**7)
    series += 1 / (1188 * further**9)
    product = values * (values + 1) * (values + 2) * (values + 3)
    product *= (values + 4) * (values + 5) * (values + 6) * (values + 7)
    found: Floats = (further - 0.5) * np.log(further) - further + 0.5 * np.log(2 * np.pi) + series - np.log(product)
    return found


def _running(values: Floats, before: ArrayLike) -> Floats:
    start = np.broadcast_to(np.asarray(before, dtype=np.float64), values.shape[:-1])[..., None]
    return np.cumsum(np.concatenate([start, values], axis=-1), axis=-1)[..., 1:]


def _shifted(running: Floats, before: ArrayLike) -> Floats:
    start = np.broadcast_to(np.asarray(before, dtype=np.float64), running.shape[:-1])[..., None]
    return np.concatenate([start, running[..., :-1]], axis=-1)
