"""What a table looks like as a whole: how many rows and columns it has, and which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ml_platform.spec.expectations.base import (
    Around,
    BatchExpectation,
    Observed,
    Schema,
    between,
    bounds,
)
from ml_platform.spec.expectations.conditions import RowCondition


@dataclass(frozen=True, kw_only=True)
class _RowCount(BatchExpectation):
    row_condition: RowCondition | None = None

    def measured(self, schema: Schema) -> pl.Expr:
        """How many rows the condition names, or all."""
        return pl.len() if self.condition is None else self.condition.expression(schema).sum()


@dataclass(frozen=True, kw_only=True)
class ExpectTableRowCountToBeBetween(_RowCount):
    """So many rows a batch; a batch of a daily table is a day."""

    min_value: int | None = None
    max_value: int | None = None
    strict_min: bool = False
    strict_max: bool = False

    def default_name(self) -> str:
        """With both bounds."""
        return f"row_count_between_{bounds(self.min_value, self.max_value)}"

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it lies there."""
        inside = between(value, self.min_value, self.max_value, self.strict_min, self.strict_max)
        return Observed(success=inside, value=value)


@dataclass(frozen=True, kw_only=True)
class ExpectTableRowCountToEqual(_RowCount):
    """Exactly so many rows a batch."""

    value: int

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it is as many."""
        return Observed(success=value == self.value, value=value)


@dataclass(frozen=True, kw_only=True)
class ExpectTableRowCountToEqualOtherTable(_RowCount):
    """As many rows as another raw table has, both read whole."""

    other_table_name: str

    @property
    def references(self) -> tuple[str, str, str]:
        """The other table, of which no column is asked."""
        return "", self.other_table_name, ""

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it is as many."""
        other = around.references[self.other_table_name].height
        return Observed(success=value == other, value={"self": value, "other": other})


@dataclass(frozen=True, kw_only=True)
class _Shape(BatchExpectation):
    """About the columns, which the schema says; no row is looked at."""

    def measured(self, schema: Schema) -> pl.Expr:
        """Nothing."""
        return pl.lit(0)


@dataclass(frozen=True, kw_only=True)
class ExpectTableColumnCountToBeBetween(_Shape):
    """So many columns."""

    min_value: int | None = None
    max_value: int | None = None

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it has."""
        return Observed(success=between(len(schema), self.min_value, self.max_value), value=len(schema))


@dataclass(frozen=True, kw_only=True)
class ExpectTableColumnCountToEqual(_Shape):
    """Exactly so many columns."""

    value: int

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it has."""
        return Observed(success=len(schema) == self.value, value=len(schema))


@dataclass(frozen=True, kw_only=True)
class ExpectTableColumnsToMatchOrderedList(_Shape):
    """Exactly these columns, in this order."""

    column_list: Sequence[str] | None = None

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it has."""
        found = list(schema)
        return Observed(success=self.column_list is None or found == list(self.column_list), value=found)


@dataclass(frozen=True, kw_only=True)
class ExpectTableColumnsToMatchSet(_Shape):
    """Exactly these columns, in any order; without ``exact_match`` others may be there, too."""

    column_set: Sequence[str] | None = None
    exact_match: bool | None = True

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it has."""
        wanted, found = set(self.column_set or ()), set(schema)
        told = {"mismatched": {"unexpected": sorted(found - wanted), "missing": sorted(wanted - found)}}
        good = self.column_set is None or (found == wanted if self.exact_match else wanted <= found)
        return Observed(success=good, value=sorted(found), details={} if good else told)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnToExist(_Shape):
    """The column is there, at ``column_index`` if that is given (counted from 0; 0 is not looked at, as in Great
    Expectations)."""

    column: str
    column_index: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Its column."""
        return (self.column,)

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed:
        """Whether it is."""
        names = list(schema)
        if self.column_index:
            return Observed(
                success=-len(names) <= self.column_index < len(names) and names[self.column_index] == self.column
            )
        return Observed(success=self.column in names)
