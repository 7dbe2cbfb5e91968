"""One value about all values of a column: Great Expectations' column aggregate expectations.

Missing values (null, NaN) are left out. A column without any value meets no bound.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ml_platform.spec.expectations.base import (
    SHOWN,
    Around,
    BatchExpectation,
    Observed,
    Schema,
    between,
    bounds,
    listed,
    value_of,
)
from ml_platform.spec.expectations.conditions import RowCondition
from ml_platform.spec.expectations.members import members

_NEAR = 1e-4  # Great Expectations takes a quantile that is off a bound by this share of it as on the bound


@dataclass(frozen=True, kw_only=True)
class ColumnAggregate(BatchExpectation):
    """About one column. row_condition: which rows count."""

    column: str
    row_condition: RowCondition | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Its column."""
        return (self.column,)

    def values(self, schema: Schema) -> pl.Expr:
        """The values that count, missing ones as null."""
        return self.where(value_of(self.column, schema), schema)


@dataclass(frozen=True, kw_only=True)
class _Bounded(ColumnAggregate):
    min_value: Any = None
    max_value: Any = None
    strict_min: bool = False
    strict_max: bool = False

    def default_name(self) -> str:
        """What is measured, with both bounds."""
        short = super().default_name().removesuffix("_to_be_between")
        return f"{short}_between_{bounds(self.min_value, self.max_value)}"

    def measured(self, schema: Schema) -> pl.Expr:
        """The value."""
        return self.measure(self.values(schema))

    @abstractmethod
    def measure(self, values: pl.Expr) -> pl.Expr:
        """The value of the values."""

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it lies between the bounds."""
        low, high = (_like(value, bound) for bound in (self.min_value, self.max_value))
        return Observed(success=between(value, low, high, self.strict_min, self.strict_max), value=value)


def _like(value: Any, bound: Any) -> Any:
    """A bound as the value is; a suite file writes times as texts."""
    if not isinstance(bound, str) or isinstance(value, str) or value is None:
        return bound
    held = pl.Series([value])
    return members([bound], held.dtype)[0]


@dataclass(frozen=True, kw_only=True)
class ExpectColumnMinToBeBetween(_Bounded):
    """The smallest value lies between the bounds."""

    def measure(self, values: pl.Expr) -> pl.Expr:
        """The smallest."""
        return values.min()


@dataclass(frozen=True, kw_only=True)
class ExpectColumnMaxToBeBetween(_Bounded):
    """The largest value lies between the bounds."""

    def measure(self, values: pl.Expr) -> pl.Expr:
        """The largest."""
        return values.max()


@dataclass(frozen=True, kw_only=True)
class ExpectColumnMeanToBeBetween(_Bounded):
    """The mean lies between the bounds."""

    def measure(self, values: pl.Expr) -> pl.Expr:
        """The mean."""
        return values.mean()


@dataclass(frozen=True, kw_only=True)
class ExpectColumnMedianToBeBetween(_Bounded):
    """The median lies between the bounds."""

    def measure(self, values: pl.Expr) -> pl.Expr:
        """The median."""
        return values.median()


@dataclass(frozen=True, kw_only=True)
class ExpectColumnStdevToBeBetween(_Bounded):
    """The standard deviation of the sample (divided by n - 1) lies between the bounds; of one value there is none."""

    def measure(self, values: pl.Expr) -> pl.Expr:
        """The standard deviation."""
        return values.std()


@dataclass(frozen=True, kw_only=True)
class ExpectColumnSumToBeBetween(_Bounded):
    """The sum lies between the bounds; of no values it is 0."""

    def measure(self, values: pl.Expr) -> pl.Expr:
        """The sum."""
        return values.sum()


@dataclass(frozen=True, kw_only=True)
class ExpectColumnUniqueValueCountToBeBetween(_Bounded):
    """So many different values."""

    def measure(self, values: pl.Expr) -> pl.Expr:
        """How many."""
        return values.drop_nulls().n_unique()


@dataclass(frozen=True, kw_only=True)
class ExpectColumnProportionOfUniqueValuesToBeBetween(_Bounded):
    """Different values by all values (0..1); of no values 0."""

    def measure(self, values: pl.Expr) -> pl.Expr:
        """The share."""
        known = values.drop_nulls()
        return pl.when(known.len() > 0).then(known.n_unique() / known.len()).otherwise(0.0)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnProportionOfNonNullValuesToBeBetween(_Bounded):
    """Values that are there by all rows (0..1); of no rows 0."""

    def measure(self, values: pl.Expr) -> pl.Expr:
        """The share."""
        return pl.when(values.len() > 0).then(values.count() / values.len()).otherwise(0.0)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnQuantileValuesToBeBetween(ColumnAggregate):
    """Each quantile lies in its range.

    quantile_ranges: ``quantiles`` (shares, 0..1) and ``value_ranges`` (pairs, ``None`` is no bound), of equal length.
    allow_relative_error: how a quantile between two values is found (linear, lower, higher, midpoint, nearest).
    """

    quantile_ranges: Mapping[str, Sequence[Any]]
    allow_relative_error: bool | str = False

    def check(self) -> None:
        """Every quantile has a range."""
        told = self.quantile_ranges
        if not told.get("quantiles") or len(told["quantiles"]) != len(told.get("value_ranges", ())):
            self.refuse("quantile_ranges holds quantiles and as many value_ranges")

    def measured(self, schema: Schema) -> pl.Expr:
        """The quantiles, in order."""
        values, way = self.values(schema), self.allow_relative_error or "nearest"
        if schema[self.column].is_integer():
            values = values.cast(pl.Float64)
        return pl.concat_list(_quantile(values, share, str(way)) for share in self.quantile_ranges["quantiles"])

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether each lies there."""
        ranges = self.quantile_ranges["value_ranges"]
        inside = [_in_range(one, low, high) for one, (low, high) in zip(value, ranges, strict=True)]
        observed = {"quantiles": list(self.quantile_ranges["quantiles"]), "values": list(value)}
        return Observed(success=all(inside), value=observed, details={"success_details": inside})


def _quantile(values: pl.Expr, share: float, way: str) -> pl.Expr:
    """As numpy finds it: of two equally near values the one with the even place counts."""
    if way != "nearest":
        return values.quantile(share, interpolation=way)  # type: ignore[arg-type]
    known = values.drop_nulls().sort()
    place = ((known.len() - 1).cast(pl.Float64) * share).round(mode="half_to_even").cast(pl.Int64)
    return known.get(place, null_on_oob=True)


def _in_range(value: float | None, low: float | None, high: float | None) -> bool:
    if value is None:
        return False
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    near = any(math.isfinite(bound) and abs(value - bound) <= 1e-8 + _NEAR * abs(bound) for bound in (low, high))
    return near or low <= value <= high


@dataclass(frozen=True, kw_only=True)
class ExpectColumnMostCommonValueToBeInSet(ColumnAggregate):
    """The most frequent value is in the set; of several equally frequent ones only if ``ties_okay``."""

    value_set: Sequence[Any] | None = None
    ties_okay: bool | None = None

    def measured(self, schema: Schema) -> pl.Expr:
        """The most frequent values."""
        return self.values(schema).drop_nulls().mode().sort().implode()

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether they are in the set."""
        known = set(members(self.value_set or (), schema[self.column]))
        inside = len(known.intersection(value))
        return Observed(success=inside > 0 if self.ties_okay else len(value) == 1 == inside, value=listed(value))


@dataclass(frozen=True, kw_only=True)
class _Distinct(ColumnAggregate):
    value_set: Sequence[Any] | None = None

    def measured(self, schema: Schema) -> pl.Expr:
        """How many different values are not in the set, the first of them, and which of the set are there."""
        known = self.values(schema).drop_nulls().unique(maintain_order=True)  # asked twice, so in one order
        wanted = members(self.value_set or (), schema[self.column]).implode()
        others = known.filter(~known.is_in(wanted))
        return pl.struct(
            others=others.len(),
            shown=others.sort().head(SHOWN).implode(),
            found=known.filter(known.is_in(wanted)).implode(),
        )

    def missing(self, value: Mapping[str, Any], schema: Schema) -> list[Any]:
        """Which of the set no row has; one that no row could have is among them."""
        wanted, found = self.value_set or (), set(value["found"])
        held = {each: members([each], schema[self.column]) for each in dict.fromkeys(wanted)}
        return [each for each, series in held.items() if series.is_empty() or series[0] not in found]


@dataclass(frozen=True, kw_only=True)
class ExpectColumnDistinctValuesToBeInSet(_Distinct):
    """Every value is in the set."""

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it is."""
        told = {"unexpected_count": value["others"], "partial_unexpected_list": value["shown"]}
        return Observed(success=not value["others"], details=told)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnDistinctValuesToContainSet(_Distinct):
    """Every value of the set occurs."""

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it does."""
        lost = self.missing(value, schema)
        return Observed(success=not lost, details={"missing_count": len(lost), "partial_missing_list": listed(lost)})


@dataclass(frozen=True, kw_only=True)
class ExpectColumnDistinctValuesToEqualSet(_Distinct):
    """Every value is in the set, and every value of the set occurs."""

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether both hold."""
        lost = self.missing(value, schema)
        told = {
            "unexpected_count": value["others"],
            "partial_unexpected_list": value["shown"],
            "missing_count": len(lost),
            "partial_missing_list": listed(lost),
        }
        return Observed(success=not lost and not value["others"], details=told)
