"""Keys of any type and number as one integer: what a point-in-time join sorts and searches by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.features.aggregates import Ints
from ml_platform.spec import StateError

ABSENT = -1
# Two columns' numbers below this multiply within 63 bits; a wider column is numbered by its distinct values instead.
_WIDEST = 2**30
_TABLE = 2**24  # numbers that are looked up in a table rather than searched
_PHYSICAL = (pl.Boolean, pl.Date, pl.Time, pl.Datetime, pl.Duration)


class _Column(Protocol):
    """Numbers for the values of one key column: 0 to ``width``, ABSENT for one that the rows do not hold."""

    @property
    def width(self) -> int: ...

    def codes(self, plain: pl.Series) -> Ints: ...


@dataclass(frozen=True)
class _Span:
    """Integers that lie close together: the distance from the smallest."""

    low: int
    width: int

    def codes(self, plain: pl.Series) -> Ints:
        if plain.has_nulls():
            held = plain.is_between(self.low, self.low + self.width - 1).fill_null(value=False).to_numpy()
            return np.where(held, plain.fill_null(self.low).to_numpy() - self.low, ABSENT)
        found: Ints = plain.to_numpy() - self.low
        # Seen as unsigned, what lies below the span is far above it; so it is if the difference overflowed.
        found[found.view(np.uint64) >= self.width] = ABSENT
        return found


@dataclass(frozen=True)
class _Sorted:
    """Integers far apart: the position among the distinct ones."""

    values: Ints

    @property
    def width(self) -> int:
        return max(len(self.values), 1)

    def codes(self, plain: pl.Series) -> Ints:
        return np.where(plain.is_null().to_numpy(), ABSENT, position(self.values, plain.fill_null(0).to_numpy()))


@dataclass(frozen=True)
class _Texts:
    """Texts: the number that Polars gave each, in a memory of this column's own; it lives as long as ``sample``."""

    sample: pl.Series
    width: int

    def codes(self, plain: pl.Series) -> Ints:
        found = plain.cast(self.sample.dtype).to_physical().cast(pl.Int64)
        return found.set(found >= self.width, ABSENT).fill_null(ABSENT).to_numpy()


@dataclass(frozen=True)
class KeyCodes:
    """One integer a key, the same for the same values; columns are those named, in their order.

    ``dense[n]``: the numbers in use after column n, where all that are possible would be too many.
    """

    names: tuple[str, ...]
    dtypes: tuple[pl.DataType, ...]
    columns: tuple[_Column, ...]
    dense: tuple[Ints | None, ...]
    width: int

    @classmethod
    def of(cls, rows: pl.DataFrame, names: Sequence[str]) -> tuple["KeyCodes", Ints]:
        """Number the rows' keys; returns the numbers, ABSENT where any part of a key is null."""
        columns: list[_Column] = []
        dense: list[Ints | None] = []
        width, codes = 1, None
        for name in names:
            plain = _plain(rows[name])
            columns.append(_column(plain))
            codes = _combined(codes, columns[-1], plain)
            width *= columns[-1].width
            dense.append(np.unique(codes[codes >= 0]) if width > _WIDEST else None)
            if (used := dense[-1]) is not None:
                codes, width = position(used, codes), max(len(used), 1)
        dtypes = tuple(rows.schema[name] for name in names)
        made = cls(tuple(names), dtypes, tuple(columns), tuple(dense), width)
        return made, np.zeros(rows.height, np.int64) if codes is None else codes

    def codes(self, asked: pl.DataFrame) -> Ints:
        """The numbers of these keys, ABSENT for a null or one that no row holds.

        Raises:
            StateError: a column is of another kind than in the rows, or holds fractions where they hold integers.
        """
        codes: Ints | None = None
        for name, dtype, column, used in zip(self.names, self.dtypes, self.columns, self.dense, strict=True):
            codes = _combined(codes, column, _plain(_alike(asked[name], dtype)))
            if used is not None:
                codes = position(used, codes)
        return np.zeros(asked.height, np.int64) if codes is None else codes


def _combined(codes: Ints | None, column: _Column, plain: pl.Series) -> Ints:
    """Of the columns so far (None: there are none) and one more."""
    own = column.codes(plain)
    if codes is None:
        return own
    return np.where((codes >= 0) & (own >= 0), codes * column.width + own, ABSENT)


def _plain(values: pl.Series) -> pl.Series:
    """As signed integers where that loses nothing, else as text; equal values stay equal, null stays null."""
    if values.dtype in _PHYSICAL:
        return values.to_physical().cast(pl.Int64)
    if values.dtype.is_integer() and values.dtype not in (pl.UInt64, pl.Int128, pl.UInt128):
        return values.cast(pl.Int64)
    if values.dtype == pl.Binary:
        return values.bin.encode("hex")
    return values.cast(pl.String)


def _column(plain: pl.Series) -> _Column:
    if plain.dtype == pl.String:
        texts = plain.cast(pl.Categorical(pl.Categories.random()))
        top = texts.to_physical().max()
        return _Texts(texts.clear(), top + 1 if isinstance(top, int) else 1)
    low, high = plain.min(), plain.max()
    if not isinstance(low, int) or not isinstance(high, int):
        return _Span(0, 1)
    if high - low < _WIDEST:
        return _Span(low, high - low + 1)
    return _Sorted(np.unique(plain.drop_nulls().to_numpy()))


def numbered(asked: pl.DataFrame, rows: pl.DataFrame, names: Sequence[str]) -> tuple[Ints, Ints]:
    """The distinct keys that are asked for, numbered from 0 without gaps: the number of each asked key and of each row.

    ABSENT for a row whose key nobody asks for; a key that is not whole, which no row holds, has the last number. The
    rows' numbers may be of 32 bits, since there are many of them.

    Raises:
        StateError: as ``KeyCodes.codes``.
    """
    key, own = KeyCodes.of(asked, names)
    theirs = key.codes(rows)
    if key.width <= _TABLE:
        used = np.zeros(key.width + 1, bool)  # one more, which ABSENT (-1) points to
        used[own] = True
        used[-1] = False
        numbers = np.where(used, np.cumsum(used) - 1, ABSENT)
        narrow: NDArray[Any] = numbers.astype(np.int32)
        own, theirs, count = numbers[own], narrow[theirs], int(used.sum())
    else:
        distinct = np.unique(own[own != ABSENT])
        own, theirs, count = position(distinct, own), position(distinct, theirs), len(distinct)
    return np.where(own == ABSENT, count, own), theirs


def stable_order(codes: Ints) -> Ints:
    """The places of the numbers (0 to 2**32 - 1) in ascending order, equal ones in the order given.

    Sixteen bits at a time, which numpy sorts by counting: five times as fast as sorting whole numbers.
    """
    order = np.argsort(codes.astype(np.uint16), kind="stable")  # the cast keeps the lowest sixteen
    if codes.max(initial=0) > 0xFFFF:
        order = order[np.argsort((codes >> 16).astype(np.uint16)[order], kind="stable")]
    return order


def places(values: Ints, wanted: Ints) -> Ints:
    """How many of the sorted ``values`` are at most as great as each wanted number.

    They are asked for in their order: on millions of values four times faster than at random, the sorting included.
    """
    turn = np.argsort(wanted)
    found = np.empty(len(wanted), np.int64)
    found[turn] = np.searchsorted(values, wanted[turn], side="right")
    return found


def position(values: Ints, wanted: Ints) -> Ints:
    """Where each wanted number stands in sorted distinct ``values``; ABSENT if it does not."""
    if not len(values):
        return np.full(len(wanted), ABSENT, np.int64)
    found = np.maximum(places(values, wanted) - 1, 0)
    return np.where(values[found] == wanted, found, ABSENT)


def _alike(asked: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The asked values in the rows' type; one that does not fit into it becomes null, for no row can hold it."""
    given, texts = asked.dtype, (pl.String, pl.Categorical, pl.Enum)
    if given == dtype or (given in texts and dtype in texts):
        return asked
    if given == pl.Null or (given.is_integer() and dtype.is_numeric()) or (given.is_float() and dtype.is_float()):
        return asked.cast(dtype, strict=False)
    if given.is_float() and dtype.is_integer():
        whole = asked.fill_nan(None)  # pandas keeps integers with a gap as floats
        if (whole == whole.floor()).all():
            return whole.cast(dtype, strict=False)
    if isinstance(given, pl.Datetime) and isinstance(dtype, pl.Datetime):
        return asked.cast(pl.Datetime(dtype.time_unit, given.time_zone))
    raise StateError(
        f"the key {asked.name} is {given} where values are asked for, but {dtype} in the feature rows; cast it to "
        f"{dtype} first"
    )
