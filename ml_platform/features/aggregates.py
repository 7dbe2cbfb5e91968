"""Aggregates over slices [lower, upper) of one sorted array of values."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ml_platform.spec import DeclarationError
from ml_platform.spec.features import ZERO_WHEN_EMPTY

# Floats are summed in fixed point, so that every order and every way of summing gives the same bits.
FIXED_POINT = 1_000_000
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Numbers = Ints | Floats


def aggregate(kind: str, values: Numbers, lower: Ints, upper: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """One aggregate for each slice, and whether it has a value.

    An empty slice gives 0 for ``count`` and ``sum`` and no value for the others.

    values: without nulls, in window order; Booleans as 0 and 1.

    Raises:
        DeclarationError: the aggregate is unknown.
    """
    if kind not in _AGGREGATES:
        raise DeclarationError(f"there is no aggregate {kind!r}; known: {', '.join(sorted(_AGGREGATES))}")
    if len(values) == 0:
        return np.zeros(len(lower)), np.full(len(lower), kind in ZERO_WHEN_EMPTY)
    filled = upper > lower
    return _AGGREGATES[kind](values, lower, upper), filled | (kind in ZERO_WHEN_EMPTY)


def _count(values: Numbers, lower: Ints, upper: Ints) -> Floats:
    return (upper - lower).astype(np.float64)


def _sum(values: Numbers, lower: Ints, upper: Ints) -> Floats:
    is_float = values.dtype.kind == "f"
    exact = np.rint(values * FIXED_POINT).astype(np.int64) if is_float else values.astype(np.int64)
    running = np.concatenate([[0], np.cumsum(exact)])
    totals: Floats = (running[upper] - running[lower]).astype(np.float64)
    scaled: Floats = totals / FIXED_POINT
    return scaled if is_float else totals


def _mean(values: Numbers, lower: Ints, upper: Ints) -> Floats:
    means: Floats = _sum(values, lower, upper) / np.maximum(upper - lower, 1)
    return means


def _first(values: Numbers, lower: Ints, upper: Ints) -> Floats:
    found: Floats = values[np.minimum(lower, len(values) - 1)].astype(np.float64)
    return found


def _last(values: Numbers, lower: Ints, upper: Ints) -> Floats:
    found: Floats = values[np.maximum(upper - 1, 0)].astype(np.float64)
    return found


def _change(values: Numbers, lower: Ints, upper: Ints) -> Floats:
    return _last(values, lower, upper) - _first(values, lower, upper)


def _extreme(choose: np.ufunc) -> Callable[[Numbers, Ints, Ints], Floats]:
    def over_slices(values: Numbers, lower: Ints, upper: Ints) -> Floats:
        # reduceat reads [lower, upper) pairs; the sentinel lets a slice end at the array's end.
        padded = np.append(values.astype(np.float64), 0.0)
        found: Floats = choose.reduceat(padded, np.ravel(np.column_stack([lower, upper])))[::2]
        return found

    return over_slices


_AGGREGATES: dict[str, Callable[[Numbers, Ints, Ints], Floats]] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "share": _mean,
    "min": _extreme(np.minimum),
    "max": _extreme(np.maximum),
    "first": _first,
    "last": _last,
    "change": _change,
}
