"""Always-valid intervals of a difference of means, and a check of the split, that may be looked at after every unit.

Both are exact at every number of units: nothing is normal "in the limit", so they hold for skewed metrics, too.

The interval inverts betting e-processes (Waudby-Smith & Ramdas 2024, section 4): if the mean of the differences d is m,
``(1 + b d) / (1 + b m)`` is on average 1, for any bet b that no d can bring to below zero. As the bets do not depend on
m, one log-sum for each bet of a grid speaks about every m at once: that is the whole state, and it adds across workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_platform.serving.eprocess import Differences, Floats, log_bar, log_mean

Ints = NDArray[np.int64]
_BETS: Floats = np.geomspace(1e-3, 0.95, 32)  # shares of the largest bet that cannot go broke
_STEPS = 4  # a doubling of the reach in so many steps: few reaches occur, and each is at most 19 % too wide
_HALVINGS = 50  # of an interval of length 2: below what a float tells apart
_PRIOR_UNITS = 100.0  # how sure the split's check is beforehand of the declared split: finds 2 points of 10,000 units


@dataclass(frozen=True, kw_only=True)
class Bets:
    """What differences (...) add: log-sums (..., bets) on "more" and on "less", and each one's reach as an exponent."""

    more: Floats
    less: Floats
    more_reach: Ints
    less_reach: Ints

    def between(self, start: int, stop: int) -> Self:
        """Those of some units."""
        here = slice(start, stop)
        return type(self)(
            more=self.more[here],
            less=self.less[here],
            more_reach=self.more_reach[here],
            less_reach=self.less_reach[here],
        )


def bets_on(found: Differences) -> Bets:
    """Of each difference, before anything is said about the mean."""
    down, up = _reach(-found.lowest), _reach(found.highest)
    share = found.found[..., None] * _BETS
    return Bets(
        more=np.log1p(share / _length(down)[..., None]),
        less=np.log1p(-share / _length(up)[..., None]),
        more_reach=down,
        less_reach=up,
    )


def owed(reach: Ints, mean: ArrayLike) -> Floats:
    """(..., bets): what a bet on "more" of such a reach would win on average if the mean were ``mean``, as logarithm.

    For bets on "less" give ``-mean``.
    """
    return np.log1p(np.asarray(mean)[..., None] * _BETS / _length(reach)[..., None])


def _reach(bound: Floats) -> Ints:
    return np.ceil(_STEPS * np.log2(bound) - 1e-9).astype(np.int64)


def _length(reach: Ints) -> Floats:
    # A hair longer, so that rounding in the logarithm above brings no bet to zero.
    return np.exp2(reach / _STEPS) * (1 + 1e-9)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """All units so far: log-sums of the bets on both sides, and how many units had each reach."""

    more: tuple[float, ...] = (0.0,) * len(_BETS)
    less: tuple[float, ...] = (0.0,) * len(_BETS)
    more_reach: Mapping[int, int]
    less_reach: Mapping[int, int]

    def after(self, bets: Bets) -> Self:
        """With more units (n,), added one by one: the same bits however cut up."""
        return type(self)(
            more=_added(self.more, bets.more),
            less=_added(self.less, bets.less),
            more_reach=_counted(self.more_reach, bets.more_reach),
            less_reach=_counted(self.less_reach, bets.less_reach),
        )

    def merged(self, other: Self) -> Self:
        """Of two workers."""
        return type(self)(
            more=tuple(np.add(self.more, other.more).tolist()),
            less=tuple(np.add(self.less, other.less).tolist()),
            more_reach=_both(self.more_reach, other.more_reach),
            less_reach=_both(self.less_reach, other.less_reach),
        )

    def log_evidence(self, mean: float) -> tuple[float, float]:
        """Log E against "the difference is at most ``mean``", and against "at least"."""
        sides = []
        for sums, reaches, at in ((self.more, self.more_reach, mean), (self.less, self.less_reach, -mean)):
            units = np.array(list(reaches.values()), dtype=np.float64)
            lost = owed(np.array(list(reaches), dtype=np.int64), np.full(len(units), at)) * units[:, None]
            sides.append(float(log_mean(np.asarray(sums) - lost.sum(axis=0))))
        return sides[0], sides[1]

    def interval(self, alpha: float) -> tuple[float, float]:
        """(low, high): all differences in [-1, 1] that neither side's evidence speaks against.

        It ever misses the true difference with probability at most alpha, however often it is looked at.

        Raises:
            ValueError: an alpha outside (0, 1).
        """
        bar = log_bar(alpha) + np.log(2)  # half the risk for each end
        ends = []
        for side, sign in ((0, 1.0), (1, -1.0)):
            # The higher a value, the less says that the difference is above it: halving finds where it is the bar.
            refused, kept = -sign, sign
            for _ in range(_HALVINGS):
                middle = (refused + kept) / 2
                refused, kept = (middle, kept) if self.log_evidence(middle)[side] >= bar else (refused, middle)
            ends.append(refused)
        return ends[0], ends[1]

    def as_json(self) -> list[Any]:
        """Plain values, from which ``from_json`` makes the same bits again."""
        reaches = [[list(pair) for pair in reach.items()] for reach in (self.more_reach, self.less_reach)]
        return [list(self.more), list(self.less), *reaches]

    @classmethod
    def from_json(cls, stored: list[Any]) -> Self:
        """What ``as_json`` gave."""
        more, less, more_reach, less_reach = stored
        return cls(more=tuple(more), less=tuple(less), more_reach=dict(more_reach), less_reach=dict(less_reach))


NO_SUMS = Sums(more_reach={}, less_reach={})


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


def _added(before: tuple[float, ...], logs: Floats) -> tuple[float, ...]:
    return tuple(np.cumsum(np.concatenate([np.asarray(before)[None], logs]), axis=0)[-1].tolist())


def _counted(before: Mapping[int, int], reaches: Ints) -> dict[int, int]:
    found, counts = np.unique(reaches, return_counts=True)
    return _both(before, dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _both(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {reach: one.get(reach, 0) + other.get(reach, 0) for reach in sorted({*one, *other})}
