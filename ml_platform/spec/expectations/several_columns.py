"""Every row's values of several columns are as expected together: pairs, keys, sums."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import polars as pl

from ml_platform.spec.expectations.base import Around, RowExpectation, Schema, Scope, value_of
from ml_platform.spec.expectations.members import members

_ALL, _ANY, _NEVER = "all_values_are_missing", "any_value_is_missing", "never"
_BOTH, _EITHER, _NEITHER = "both_values_are_missing", "either_value_is_missing", "neither"


def _looked_at(values: Sequence[pl.Expr], ignore_row_if: str) -> pl.Expr:
    missing = [value.is_null() for value in values]
    if ignore_row_if in (_ALL, _BOTH):
        return ~pl.all_horizontal(missing)
    return ~pl.any_horizontal(missing) if ignore_row_if in (_ANY, _EITHER) else pl.lit(True)


@dataclass(frozen=True, kw_only=True)
class _Columns(RowExpectation):
    """ignore_row_if: rows with which missing values are not looked at."""

    ignored: ClassVar[tuple[str, ...]]

    def check(self) -> None:
        """What is ignored is known."""
        super().check()
        if getattr(self, "ignore_row_if") not in self.ignored:  # noqa: B009  # declared below
            self.refuse(f"ignore_row_if is one of {', '.join(self.ignored)}")


class _RowByRow(_Columns):
    """What is to be said of a row follows from its values."""

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether the values are as expected; a comparison with a missing one does not hold."""
        values = [value_of(name, schema) for name in self.columns]
        ignore = str(getattr(self, "ignore_row_if"))  # noqa: B009
        return pl.when(_looked_at(values, ignore)).then(self.hold(values, schema).fill_null(False))

    @abstractmethod
    def hold(self, values: Sequence[pl.Expr], schema: Schema) -> pl.Expr:
        """Whether the values of a row are as expected."""


@dataclass(frozen=True, kw_only=True)
class ColumnPair(_Columns):
    """About two columns."""

    column_A: str  # noqa: N815  # as Great Expectations writes it
    column_B: str  # noqa: N815
    ignore_row_if: str = _BOTH

    ignored: ClassVar[tuple[str, ...]] = (_BOTH, _EITHER, _NEITHER)

    @property
    def columns(self) -> tuple[str, ...]:
        """Both."""
        return (self.column_A, self.column_B)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnPairValuesToBeEqual(ColumnPair, _RowByRow):
    """Both values are equal."""

    def hold(self, values: Sequence[pl.Expr], schema: Schema) -> pl.Expr:
        """Whether they are."""
        return values[0] == values[1]


@dataclass(frozen=True, kw_only=True)
class ExpectColumnPairValuesAToBeGreaterThanB(ColumnPair, _RowByRow):
    """The first value is above the second, or equal with ``or_equal``."""

    or_equal: bool | None = None

    def hold(self, values: Sequence[pl.Expr], schema: Schema) -> pl.Expr:
        """Whether it is."""
        return values[0] >= values[1] if self.or_equal else values[0] > values[1]


@dataclass(frozen=True, kw_only=True)
class ExpectColumnPairValuesToBeInSet(ColumnPair, _RowByRow):
    """The pair is one of a list; ``None`` in it is a missing value."""

    value_pairs_set: Sequence[Sequence[Any]] | None = None

    def hold(self, values: Sequence[pl.Expr], schema: Schema) -> pl.Expr:
        """Whether it is one of them."""
        if self.value_pairs_set is None:
            return pl.lit(True)
        found = [self._is(values, pair, schema) for pair in self.value_pairs_set]
        return pl.any_horizontal(found) if found else pl.lit(False)

    def _is(self, values: Sequence[pl.Expr], pair: Sequence[Any], schema: Schema) -> pl.Expr:
        each = zip(values, pair, self.columns, strict=True)
        return pl.all_horizontal(_equals(value, given, schema[name]) for value, given, name in each)


def _equals(value: pl.Expr, given: Any, dtype: Any) -> pl.Expr:
    if given is None:
        return value.is_null()
    held = members([given], dtype)
    return pl.lit(False) if held.is_empty() else (value == held[0]).fill_null(False)


@dataclass(frozen=True, kw_only=True)
class ColumnList(_Columns):
    """About two columns or more."""

    column_list: Sequence[str]
    ignore_row_if: str = _ALL

    ignored: ClassVar[tuple[str, ...]] = (_ALL, _ANY, _NEVER)

    def check(self) -> None:
        """There are two columns."""
        super().check()
        if len(self.column_list) < 2:
            self.refuse("column_list names two columns or more")

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self.column_list)


@dataclass(frozen=True, kw_only=True)
class ExpectCompoundColumnsToBeUnique(ColumnList):
    """No other row of the batch has the same values; all rows fail that share them. Two missing values are equal."""

    scope: ClassVar[Scope] = "rows"

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether they occur once among the rows that are looked at."""
        values = [value_of(name, schema) for name in self.columns]
        looked_at = _looked_at(values, self.ignore_row_if)
        if self.condition is not None:
            looked_at &= self.condition.expression(schema)
        together = pl.struct(value.alias(str(n)) for n, value in enumerate(values))
        if self.condition is None and self.ignore_row_if == _NEVER:
            return together.is_unique()
        return pl.when(looked_at).then(looked_at.sum().over(together) == 1)


@dataclass(frozen=True, kw_only=True)
class ExpectSelectColumnValuesToBeUniqueWithinRecord(ColumnList, _RowByRow):
    """All values of a row are different from each other; two missing values are equal."""

    def hold(self, values: Sequence[pl.Expr], schema: Schema) -> pl.Expr:
        """Whether they are."""
        pairs = [(one, other) for n, one in enumerate(values) for other in values[n + 1 :]]
        return pl.all_horizontal(one.ne_missing(other) for one, other in pairs)


@dataclass(frozen=True, kw_only=True)
class ExpectMulticolumnValuesToBeEqual(ColumnList, _RowByRow):
    """All values of a row are equal; two missing values are equal."""

    def hold(self, values: Sequence[pl.Expr], schema: Schema) -> pl.Expr:
        """Whether they are."""
        return pl.all_horizontal(values[0].eq_missing(other) for other in values[1:])


@dataclass(frozen=True, kw_only=True)
class ExpectMulticolumnSumToEqual(ColumnList, _RowByRow):
    """The values of a row add up to ``sum_total``; with a missing one they do not."""

    sum_total: float

    def hold(self, values: Sequence[pl.Expr], schema: Schema) -> pl.Expr:
        """Whether they do."""
        return reduce(lambda one, other: one + other, values) == self.sum_total
