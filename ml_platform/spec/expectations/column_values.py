"""Every value of one column is as expected: Great Expectations' column map expectations, but those on texts."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import polars as pl

from ml_platform.spec.expectations.base import (
    Around,
    BatchExpectation,
    Observed,
    RowExpectation,
    Schema,
    Scope,
    bounds,
    value_of,
    within,
)
from ml_platform.spec.expectations.members import members
from ml_platform.spec.expectations.types import types_named


@dataclass(frozen=True, kw_only=True)
class ColumnValues(RowExpectation):
    """About the values of one column; a missing value (null, NaN) is not looked at unless it says so."""

    column: str

    @classmethod
    def each(cls, *columns: str, **rest: Any) -> tuple[Self, ...]:
        """One such expectation a column."""
        return tuple(cls(column=column, **rest) for column in columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """Its column."""
        return (self.column,)


@dataclass(frozen=True, kw_only=True)
class ValueByValue(ColumnValues):
    """What is to be said of a value follows from the value."""

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether the value is as expected; null where there is none."""
        return self.holds(value_of(self.column, schema), schema)

    @abstractmethod
    def holds(self, value: pl.Expr, schema: Schema) -> pl.Expr:
        """Whether a value is as expected; null where it is null."""


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToNotBeNull(ValueByValue):
    """There is a value."""

    def default_name(self) -> str:
        """Short, as the most frequent of all."""
        return f"{self.column}_not_null"

    def holds(self, value: pl.Expr, schema: Schema) -> pl.Expr:
        """Of every row."""
        return value.is_not_null()


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeNull(ValueByValue):
    """There is no value."""

    def holds(self, value: pl.Expr, schema: Schema) -> pl.Expr:
        """Of every row."""
        return value.is_null()


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeBetween(ValueByValue):
    """The value lies in [min_value, max_value], in units of the column; a strict bound is not part of it."""

    min_value: Any = None
    max_value: Any = None
    strict_min: bool = False
    strict_max: bool = False

    def check(self) -> None:
        """There is a bound, and the lower one is not above the other."""
        super().check()
        if self.min_value is None and self.max_value is None:
            self.refuse("it needs min_value or max_value")
        if self.min_value is not None and self.max_value is not None and self.min_value > self.max_value:
            self.refuse("min_value is above max_value")

    def default_name(self) -> str:
        """With both bounds."""
        return f"{self.column}_between_{bounds(self.min_value, self.max_value)}"

    def holds(self, value: pl.Expr, schema: Schema) -> pl.Expr:
        """Whether it lies there."""
        low, high = (_moment(bound, self.column, schema) for bound in (self.min_value, self.max_value))
        return within(value, low, high, self.strict_min, self.strict_max)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeInSet(ValueByValue):
    """The value is one of a closed list; without a list every value is."""

    value_set: Sequence[Any] | None = None

    def default_name(self) -> str:
        """The list itself would be too long."""
        return f"{self.column}_is_known"

    def holds(self, value: pl.Expr, schema: Schema) -> pl.Expr:
        """Whether it is one of them."""
        return _among(value, self.value_set, self.column, schema)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToNotBeInSet(ValueByValue):
    """The value is none of a list; without a list every value is."""

    value_set: Sequence[Any] | None = None

    def holds(self, value: pl.Expr, schema: Schema) -> pl.Expr:
        """Whether it is none of them."""
        found = _among(value, self.value_set, self.column, schema)
        return found if self.value_set is None else ~found


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeUnique(ColumnValues):
    """No other row of the batch has the value; all rows fail that share one."""

    scope: ClassVar[Scope] = "rows"

    def surely_met(self, schema: Schema) -> pl.Expr:
        """Counting different values costs a fifth of finding the equal ones, or less."""
        value = value_of(self.column, schema).drop_nulls()
        return value.n_unique() == value.len()

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether it occurs once among the rows that the condition names."""
        value = value_of(self.column, schema)
        if self.condition is None:
            return pl.when(value.is_not_null()).then(value.is_unique())
        counted = value.is_not_null() & self.condition.expression(schema)
        return pl.when(counted).then(counted.sum().over(value) == 1)


@dataclass(frozen=True, kw_only=True)
class _InOrder(ColumnValues):
    """Compares every value with the one before it, of the rows that have one; the first has none before it."""

    strictly: bool | None = None

    scope: ClassVar[Scope] = "rows"
    rising: ClassVar[bool]

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether it is in order after the value before it."""
        value = value_of(self.column, schema)
        if self.condition is not None:
            value = pl.when(self.condition.expression(schema)).then(value)
        before = value.forward_fill().shift(1)
        if self.rising:
            ordered = value > before if self.strictly else value >= before
        else:
            ordered = value < before if self.strictly else value <= before
        return pl.when(value.is_not_null()).then(ordered.fill_null(True))


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeIncreasing(_InOrder):
    """No value is below the one before it (with ``strictly``, none is equal either)."""

    rising: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeDecreasing(_InOrder):
    """No value is above the one before it (with ``strictly``, none is equal either)."""

    rising: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValueZScoresToBeLessThan(ValueByValue):
    """The value is fewer than ``threshold`` standard deviations of the batch off its mean; where all are equal, it is.

    double_sided: below the mean counts, too.
    """

    threshold: float
    double_sided: bool

    scope: ClassVar[Scope] = "rows"

    def holds(self, value: pl.Expr, schema: Schema) -> pl.Expr:
        """Whether it lies near enough."""
        known = value if self.condition is None else value.filter(self.condition.expression(schema))
        score = (value - known.mean()) / known.std()
        near = score.abs() < abs(self.threshold) if self.double_sided else score < self.threshold
        defined = (known.std() > 0) & known.std().is_finite()
        return pl.when(value.is_not_null()).then((near | score.is_nan() | ~defined).fill_null(True))


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToNotBeOutliers(ValueByValue):
    """The value lies within ``multiplier`` spreads of the batch: quartile ranges beyond the quartiles (``iqr``), or
    standard deviations about the mean (``std``)."""

    method: str = "iqr"
    multiplier: float = 1.5

    scope: ClassVar[Scope] = "rows"

    def check(self) -> None:
        """The method is known."""
        super().check()
        if self.method not in ("iqr", "std"):
            self.refuse("method is iqr or std")

    def holds(self, value: pl.Expr, schema: Schema) -> pl.Expr:
        """Whether it lies there; where the batch has no spread to measure by, it does."""
        known = value if self.condition is None else value.filter(self.condition.expression(schema))
        if self.method == "iqr":
            low, high = (known.quantile(share, interpolation="linear") for share in (0.25, 0.75))
            reach = self.multiplier * (high - low)
            inside, undefined = (value >= low - reach) & (value <= high + reach), ~reach.is_finite()
        else:
            middle, reach = known.mean(), self.multiplier * known.std()
            inside = pl.when(reach <= 0).then(value == middle).otherwise((value - middle).abs() < reach)
            undefined = ~reach.is_finite() | ~middle.is_finite()
        return pl.when(value.is_not_null()).then((inside | undefined.fill_null(True)).fill_null(True))


@dataclass(frozen=True, kw_only=True)
class _ColumnType(BatchExpectation):
    """About a column's type: by the names of Polars, numpy, pandas or Python."""

    column: str
    mostly: float = 1.0

    @property
    def columns(self) -> tuple[str, ...]:
        """Its column."""
        return (self.column,)

    def measured(self, schema: Schema) -> pl.Expr:
        """The schema says it; no row is looked at."""
        return pl.lit(0)

    @abstractmethod
    def named(self) -> Sequence[str] | None:
        """The types that are right; ``None``: any."""

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether the column is of one of them."""
        found, names = schema[self.column], self.named()
        known = names is None or any(found in types_named(name) for name in names)
        return Observed(success=known, value=str(found))


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeOfType(_ColumnType):
    """The column is of this type."""

    type_: str

    def named(self) -> Sequence[str]:
        """The one."""
        return [self.type_]


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeInTypeList(_ColumnType):
    """The column is of one of these types."""

    type_list: Sequence[str] | None = None

    def named(self) -> Sequence[str] | None:
        """The list."""
        return self.type_list


def _among(value: pl.Expr, given: Sequence[Any] | None, column: str, schema: Schema) -> pl.Expr:
    if given is None:
        return pl.when(value.is_not_null()).then(True)
    return value.is_in(members(given, schema[column]).implode())


def _moment(bound: Any, column: str, schema: Schema) -> Any:
    """A bound of a column of times may be written as a text, as in a suite file."""
    return members([bound], schema[column])[0] if isinstance(bound, str) else bound
