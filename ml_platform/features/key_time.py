"""Rows sorted by key and time, and the last one of a key at or before a moment."""

from dataclasses import dataclass

import numpy as np

from ml_platform.features.aggregates import Ints
from ml_platform.features.key_codes import ABSENT, places, position

_BITS = 62
_UNITS = (3_600_000_000, 60_000_000, 1_000_000, 1_000)  # hour, minute, second, millisecond in microseconds


@dataclass(frozen=True)
class Steps:
    """Times counted in steps of ``unit`` microseconds since ``origin``, 0 to ``span`` - 1."""

    origin: int
    unit: int
    span: int

    @classmethod
    def of(cls, moments: Ints) -> "Steps":
        """The largest of some units on which all moments stand."""
        if not len(moments):
            return cls(0, 1, 1)
        unit = next((unit for unit in _UNITS if _divides(unit, moments)), 1)
        origin = int(moments.min()) // unit * unit
        return cls(origin, unit, (int(moments.max()) - origin) // unit + 1)

    def count(self, moments: Ints) -> Ints:
        """The last step at or before each moment; -1 before the first."""
        last = self.origin + (self.span - 1) * self.unit
        return (np.clip(moments, self.origin - self.unit, last) - self.origin) // self.unit


def keyed(codes: Ints, moments: Ints, width: int) -> tuple[Ints, Steps | None]:
    """Key (0 to ``width`` - 1) and time of each row as one integer that sorts by both.

    Where steps take too many bits, times are numbered by those that occur, and there are no steps.
    """
    steps = Steps.of(moments)
    if width * steps.span <= 2**_BITS:
        return codes * steps.span + steps.count(moments), steps
    distinct, numbers = np.unique(moments, return_inverse=True)
    return codes * len(distinct) + numbers, None


@dataclass(frozen=True)
class Packed:
    """Key and time in one integer, searched at once."""

    steps: Steps
    rows: Ints

    def find(self, codes: Ints, moments: Ints) -> Ints:
        """The place of the last row of each key at or before the moment, ABSENT where there is none."""
        first = codes * self.steps.span
        found = places(self.rows, first + self.steps.count(moments)) - 1
        reached = (codes >= 0) & (found >= 0)
        if len(self.rows):
            reached &= self.rows[np.maximum(found, 0)] >= first
        return np.where(reached, found, ABSENT)

    def last_of_keys(self) -> Ints:
        """The place of each key's last row."""
        return _ends(self.rows // self.steps.span)


@dataclass(frozen=True)
class Halved:
    """Each key's stretch of rows, halved until the moment is found: for keys so many that nothing packs."""

    used: Ints
    starts: Ints
    moments: Ints

    @classmethod
    def of(cls, codes: Ints, moments: Ints) -> "Halved":
        """From rows sorted by key and time."""
        ends = _ends(codes)
        return cls(codes[ends], np.append(0, ends + 1), moments)

    def find(self, codes: Ints, moments: Ints) -> Ints:
        """As ``Packed.find``."""
        own = position(self.used, codes)
        first = self.starts[np.maximum(own, 0)]
        low, high = first.copy(), np.where(own >= 0, self.starts[own + 1], first)
        while len(still := np.flatnonzero(low < high)):
            middle = (low[still] + high[still]) // 2
            seen = self.moments[middle] <= moments[still]
            low[still[seen]] = middle[seen] + 1
            high[still[~seen]] = middle[~seen]
        return np.where(low > first, low - 1, ABSENT)

    def last_of_keys(self) -> Ints:
        """As ``Packed.last_of_keys``."""
        return self.starts[1:] - 1


def _ends(codes: Ints) -> Ints:
    return np.flatnonzero(np.append(codes[1:] != codes[:-1], np.ones(min(len(codes), 1), bool)))


def _divides(unit: int, moments: Ints) -> bool:
    return not (moments[:1000] % unit).any() and not (moments % unit).any()
