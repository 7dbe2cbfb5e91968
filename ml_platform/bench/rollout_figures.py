"""A figure of a simulation beside its bar, with the exact binomial interval of what was counted."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ml_platform.serving.eprocess import Floats

_LEVEL = 0.90
_HALVINGS = 60


@dataclass(frozen=True, kw_only=True)
class Figure:
    """``value`` and its 90 % interval; ``bar``: at most that (or at least, with ``at_least``); None: no bar is set."""

    what: str
    value: float
    low: float
    high: float
    bar: float | None = None
    at_least: bool = False
    share: bool = True

    @property
    def short(self) -> bool:
        """The figure itself misses its bar."""
        if self.bar is None:
            return False
        return self.value < self.bar if self.at_least else self.value > self.bar

    def line(self) -> str:
        """The figure, its interval and its bar; SHORT where it misses it."""
        bar = (
            "" if self.bar is None else f"  {'at least' if self.at_least else 'at most'} {_shown(self.bar, self.share)}"
        )
        value, low, high = (_shown(number, self.share) for number in (self.value, self.low, self.high))
        return f"  {self.what:72}{value:>9}  ({low} to {high}){bar}{'  SHORT' if self.short else ''}"


def share_of(what: str, hits: ArrayLike, *, bar: float | None = None, at_least: bool = False) -> Figure:
    """The share of runs in which something happened (runs,), with Clopper and Pearson's interval."""
    count, runs = int(np.count_nonzero(hits)), np.size(hits)
    low, high = binomial_interval(count, runs)
    return Figure(what=what, value=count / runs, low=low, high=high, bar=bar, at_least=at_least)


def median_of(what: str, requests: Floats, *, bar: float | None = None) -> Figure:
    """The median of the runs (runs,), infinite ones included, with the order statistics that bound it."""
    ordered = np.sort(requests)
    low, high = median_places(len(ordered))
    middle = float(ordered[(len(ordered) - 1) // 2])  # no mean of two: one may be infinite
    return Figure(what=what, value=middle, low=float(ordered[low]), high=float(ordered[high]), bar=bar, share=False)


def binomial_interval(hits: int, runs: int) -> tuple[float, float]:
    """The exact 90 % interval of a share (Clopper & Pearson 1934)."""
    tail = (1 - _LEVEL) / 2
    low = 0.0 if hits == 0 else _where(lambda share: 1 - _at_most(hits - 1, runs, share) < tail)
    high = 1.0 if hits == runs else _where(lambda share: _at_most(hits, runs, share) > tail)
    return low, high


def median_places(runs: int) -> tuple[int, int]:
    """Places (from 0) in the order of size that enclose the median with at least 90 %."""
    tail, place = (1 - _LEVEL) / 2, -1
    while place + 1 < (runs - 1) / 2 and _at_most(place + 1, runs, 0.5) <= tail:
        place += 1
    low = max(place, 0)
    return low, runs - 1 - low


def _at_most(hits: int, runs: int, share: float) -> float:
    """The probability of at most so many hits."""
    if not 0 < share < 1:
        return 1.0 if share <= 0 or hits >= runs else 0.0
    logs = (
        math.lgamma(runs + 1)
        - math.lgamma(k + 1)
        - math.lgamma(runs - k + 1)
        + k * math.log(share)
        + (runs - k) * math.log1p(-share)
        for k in range(hits + 1)
    )
    return math.fsum(map(math.exp, logs))


def _where(still: Callable[[float], bool]) -> float:
    """The share up to which something holds."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if still(middle) else (low, middle)
    return low


def _shown(number: float, share: bool) -> str:
    if share:
        return f"{number:.1%}"
    return "never" if math.isinf(number) else f"{number:,.0f}"
