"""Aggregates over slices [lower, upper) of one sorted array of values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_platform.spec import DeclarationError
from ml_platform.spec.features import FIXED_POINT, ZERO_WHEN_EMPTY

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Numbers = Ints | Floats


@dataclass(frozen=True)
class Values:
    """Numbers without nulls, in window order, Booleans as 0 and 1; what several aggregates need is made once."""

    numbers: Numbers
    _made: dict[tuple[int, ...], tuple[Any, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def exact(self) -> Ints:
        """As integers, floats in fixed point."""
        if self.is_float:
            return np.rint(self.numbers * FIXED_POINT).astype(np.int64)
        return self.numbers.astype(np.int64, copy=False)

    @cached_property
    def is_float(self) -> bool:
        """Whether ``exact`` is in fixed point."""
        return self.numbers.dtype.kind == "f"

    @cached_property
    def running(self) -> Ints:
        """The sum of the first n, for each n from 0 on."""
        sums = np.zeros(len(self.numbers) + 1, np.int64)
        np.cumsum(self.exact, out=sums[1:])
        return sums

    def up_to(self, places: Ints) -> Ints:
        """The sum of the first n, for each of the places n."""
        found: Ints = self._once(lambda: self.running[places], places)
        return found

    def sums(self, lower: Ints, upper: Ints) -> Floats:
        """The sum of each slice; not to be written into, since several aggregates share it."""

        def made() -> Floats:
            totals: Floats = (self.up_to(upper) - self.running[lower]).astype(np.float64)
            return totals / FIXED_POINT if self.is_float else totals

        found: Floats = self._once(made, lower, upper)
        return found

    def _once(self, made: Callable[[], Any], *of: Ints) -> Any:
        """What was made of these very arrays; they are kept with it, so that no other can have their identity."""
        key = tuple(map(id, of))
        if key not in self._made:
            self._made[key] = (made(), of)
        return self._made[key][0]


def aggregate(kind: str, values: Values, lower: Ints, upper: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """One aggregate for each slice, and whether it has a value.

    An empty slice gives 0 for ``count`` and ``sum`` and no value for the others.

    Raises:
        DeclarationError: the aggregate is unknown.
    """
    if kind not in _AGGREGATES:
        raise DeclarationError(f"there is no aggregate {kind!r}; known: {', '.join(sorted(_AGGREGATES))}")
    if len(values.numbers) == 0:
        return np.zeros(len(lower)), np.full(len(lower), kind in ZERO_WHEN_EMPTY)
    enough = upper - lower >= (2 if kind == "std" else 1)
    return _AGGREGATES[kind](values, lower, upper), enough | (kind in ZERO_WHEN_EMPTY)


def _count(values: Values, lower: Ints, upper: Ints) -> Floats:
    return (upper - lower).astype(np.float64)


def _sum(values: Values, lower: Ints, upper: Ints) -> Floats:
    return values.sums(lower, upper).copy()


def _mean(values: Values, lower: Ints, upper: Ints) -> Floats:
    means: Floats = values.sums(lower, upper) / np.maximum(upper - lower, 1)
    return means


def _std(values: Values, lower: Ints, upper: Ints) -> Floats:
    """From exact sums of Python's integers, since squares in fixed point outgrow 64 bits."""
    wide = values.exact.astype(object)
    sums, squares = (np.concatenate([[0], np.cumsum(column)]) for column in (wide, wide * wide))
    count = (upper - lower).astype(object)
    spread = count * (squares[upper] - squares[lower]) - (sums[upper] - sums[lower]) ** 2
    found: Floats = np.sqrt((spread / np.maximum(count * (count - 1), 1)).astype(np.float64))
    return found / FIXED_POINT if values.is_float else found


def _distinct(values: Values, lower: Ints, upper: Ints) -> Floats:
    """Slices that many questions share are counted once."""
    slices, place = np.unique(np.column_stack([lower, upper]), axis=0, return_inverse=True)
    counts = np.array([len(np.unique(values.numbers[low:high])) for low, high in slices], dtype=np.float64)
    return counts[place.ravel()]


def _first(values: Values, lower: Ints, upper: Ints) -> Floats:
    found: Floats = values.numbers[np.minimum(lower, len(values.numbers) - 1)].astype(np.float64)
    return found


def _last(values: Values, lower: Ints, upper: Ints) -> Floats:
    found: Floats = values.numbers[np.maximum(upper - 1, 0)].astype(np.float64)
    return found


def _change(values: Values, lower: Ints, upper: Ints) -> Floats:
    return _last(values, lower, upper) - _first(values, lower, upper)


def _extreme(choose: np.ufunc) -> Callable[[Values, Ints, Ints], Floats]:
    def over_slices(values: Values, lower: Ints, upper: Ints) -> Floats:
        # reduceat reads [lower, upper) pairs; the sentinel lets a slice end at the array's end.
        padded = np.append(values.numbers.astype(np.float64), 0.0)
        found: Floats = choose.reduceat(padded, np.ravel(np.column_stack([lower, upper])))[::2]
        return found

    return over_slices


_AGGREGATES: dict[str, Callable[[Values, Ints, Ints], Floats]] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "share": _mean,
    "std": _std,
    "distinct": _distinct,
    "min": _extreme(np.minimum),
    "max": _extreme(np.maximum),
    "first": _first,
    "last": _last,
    "change": _change,
}
