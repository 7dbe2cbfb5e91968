"""What a contract asks of rows beyond Great Expectations' vocabulary: invariants, references, runs, steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import polars as pl

from ml_platform.spec.errors import DeclarationError
from ml_platform.spec.expectations.base import Around, RowExpectation, Schema, Scope, value_of
from ml_platform.spec.expectations.column_values import ColumnValues


@dataclass(frozen=True, kw_only=True)
class ExpectInvariantToHold(RowExpectation):
    """Any condition over the columns of one row; null means that it does not apply. It needs a ``name``."""

    holds: pl.Expr

    own: ClassVar[bool] = True

    def check(self) -> None:
        """It is named, and names its columns."""
        super().check()
        if not self.name:
            raise DeclarationError(f"an invariant needs a name, which is its reason: {self.holds}")
        if self.holds.meta.has_multiple_outputs():
            self.refuse("it selects columns by type or pattern; name them, so that it is known what it looks at")

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that the condition reads."""
        return tuple(dict.fromkeys(self.holds.meta.root_names()))

    @property
    def kwargs(self) -> dict[str, Any]:
        """The condition as Polars writes it for machines, and what else was given."""
        told = {"holds": self.holds.meta.serialize(format="json")}
        rest = {"mostly": self.mostly} if self.mostly < 1 else {}
        return {**told, **rest, **({"row_condition": self.row_condition} if self.row_condition else {})}

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether it holds."""
        return self.holds


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToReferTo(ColumnValues):
    """The value, where there is one, occurs in ``raw/<table>.<other>``, or is one of ``besides``."""

    table: str
    other: str
    besides: Sequence[str] = ()

    own: ClassVar[bool] = True

    def default_name(self) -> str:
        """With the other table."""
        return f"{self.column}_in_{self.table}"

    @property
    def references(self) -> tuple[str, str, str]:
        """What it refers to."""
        return self.column, self.table, self.other

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether it occurs there."""
        if self.table not in around.references:
            known = ", ".join(sorted(around.references)) or "none"
            raise DeclarationError(
                f"rule {self.name!r} refers to raw/{self.table}, which was not handed over; known: {known}"
            )
        there = around.references[self.table][self.other].drop_nulls().unique()
        if self.besides:
            there = pl.concat([there, pl.Series(there.name, list(self.besides), dtype=there.dtype)])
        return value_of(self.column, schema).is_in(there.implode())


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeFinite(ColumnValues):
    """The value, where there is one, is a number: neither NaN nor infinite."""

    own: ClassVar[bool] = True

    def default_name(self) -> str:
        """Short."""
        return f"{self.column}_finite"

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether it is; here a NaN is looked at."""
        return pl.col(self.column).is_finite()


@dataclass(frozen=True, kw_only=True)
class _AfterAnother(ColumnValues):
    """Compares a row with those before it, in the order in which they became known.

    by: columns of the groups that are looked at apart. back: days before the batch that are looked at, too.
    """

    by: Sequence[str] = ()
    back: int = 2

    scope: ClassVar[Scope] = "rows"
    own: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The groups, too."""
        return tuple(dict.fromkeys([*super().reads, *self.by]))

    @property
    def looks_back_days(self) -> int:
        """As declared."""
        return self.back

    def grouped(self, values: pl.Expr, *more: pl.Expr) -> pl.Expr:
        """The values within each group."""
        groups = [*(pl.col(name) for name in self.by), *more]
        return values.over(groups) if groups else values


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValueRunsToBeAtMost(_AfterAnother):
    """Not more than ``longest`` equal values in a row, missing ones left out: a sensor that is stuck repeats itself.

    A row fails from the first one on that is one too many, so a row is judged by what came before it alone.
    """

    longest: int
    besides: Sequence[Any] = ()  # values that may repeat for ever, as a precipitation of 0

    def check(self) -> None:
        """A run has a length."""
        super().check()
        if self.longest < 1:
            self.refuse("longest is 1 or more")

    def default_name(self) -> str:
        """With the length."""
        return f"{self.column}_runs_at_most_{self.longest}"

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether the run is not too long yet."""
        value = value_of(self.column, schema)
        before = self.grouped(value.forward_fill().shift(1))
        runs = self.grouped((value.is_not_null() & value.ne_missing(before)).cum_sum())
        place = self.grouped(value.is_not_null().cum_sum(), runs)
        short = place <= self.longest
        may = short | value.is_in(list(self.besides)) if self.besides else short
        return pl.when(value.is_not_null()).then(may)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValueStepsToBeAtMost(_AfterAnother):
    """A value differs from the one before it by at most ``largest`` (units of the column).

    time, within: compared are only values that lie at most so far apart in the column of times.
    """

    largest: float
    time: str = ""
    within: timedelta | None = None

    def check(self) -> None:
        """A distance in time needs times."""
        super().check()
        if bool(self.time) != (self.within is not None):
            self.refuse("time and within belong together")

    def default_name(self) -> str:
        """With the step."""
        return f"{self.column}_steps_at_most_{self.largest:g}"

    @property
    def reads(self) -> tuple[str, ...]:
        """The times, too."""
        return (*super().reads, *([self.time] if self.time else []))

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether the step is small enough; null where there is none."""
        value = value_of(self.column, schema)
        small = (value - self.grouped(value.shift(1))).abs() <= self.largest
        if self.within is None:
            return small
        near = pl.col(self.time) - self.grouped(pl.col(self.time).shift(1)) <= self.within
        return pl.when(near).then(small)


@dataclass(frozen=True, kw_only=True)
class ExpectColumnValuesToBeConstantWithin(_AfterAnother):
    """All rows of a group have the same value, or values that differ by a share of at most ``tolerance``.

    Compared with the value that the group had first in the days looked at: a route's distance does not change.
    """

    tolerance: float = 0.0

    def check(self) -> None:
        """There are groups."""
        super().check()
        if not self.by:
            self.refuse("by names the columns of the groups")

    def default_name(self) -> str:
        """With the groups."""
        return f"{self.column}_constant_within_{'_'.join(self.by)}"

    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether it is the group's."""
        value = value_of(self.column, schema)
        first = self.grouped(value.drop_nulls().first())
        return (value - first).abs() <= self.tolerance * first.abs() if self.tolerance else value == first
