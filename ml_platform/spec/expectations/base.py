"""What every expectation has: a type of Great Expectations' vocabulary, arguments, a severity, and what follows."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Literal, get_args

import polars as pl

from ml_platform.spec.errors import DeclarationError
from ml_platform.spec.expectations.conditions import RowCondition

PART = "part"  # the local day of a row, as a column

Severity = Literal["critical", "warning", "info"]
Action = Literal["quarantine", "stop", "hold", "warn"]
Scope = Literal["row", "rows", "batch"]
Schema = Mapping[str, pl.DataType | type[pl.DataType]]

SHOWN = 20  # values that a result lists; Great Expectations shows as many
_CLOSED: Mapping[tuple[bool, bool], Literal["both", "right", "left", "none"]] = {
    (False, False): "both",
    (True, False): "right",
    (False, True): "left",
    (True, True): "none",
}
# Fields that say what follows from a failure; everything else is an argument of the type.
_ABOUT = ("severity", "action", "name", "notes")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a batch was found to be: whether it meets the expectation, the value observed, and more for a page."""

    success: bool
    value: Any = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Around:
    """What lies around a batch, for expectations that look further than its rows.

    references: raw tables that expectations refer to, by name.
    before: rows of the same table that were known earlier, with their part (the local day) in ``part``.
    ends: when each part was over.
    summaries: what an expectation made of the parts before and of these, by its name.
    """

    references: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    before: pl.DataFrame | None = None
    ends: Mapping[Any, datetime] = field(default_factory=dict)
    summaries: Mapping[str, pl.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One line of a contract.

    severity: ``critical``, ``warning`` or ``info``, as in Great Expectations.
    action: what follows from a failure. ``quarantine`` sets the rows aside that fail, with the name as their reason;
        ``stop`` refuses the whole batch; ``hold`` lets the batch in, but the check fails, which holds back what uses
        the columns; ``warn`` says so. By default a critical expectation that one row alone decides quarantines, any
        other critical one holds, and the rest warn.
    name: the reason that people read; made of type and arguments unless it is given.
    notes: anything that people should know.
    """

    severity: Severity = "critical"
    action: Action | None = None
    name: str = ""
    notes: str = ""

    scope: ClassVar[Scope] = "batch"
    own: ClassVar[bool] = False  # not in Great Expectations' vocabulary

    def __post_init__(self) -> None:
        """Fill in what follows from the rest, and refuse what cannot be."""
        self.check()
        if not self.name:
            object.__setattr__(self, "name", self.default_name())
        if self.action is None:
            object.__setattr__(self, "action", self.default_action())
        if self.severity not in get_args(Severity) or self.action not in get_args(Action):
            self.refuse(f"severity={self.severity!r} is one of {get_args(Severity)}, action one of {get_args(Action)}")
        if self.action == "quarantine" and self.scope == "batch":
            self.refuse("it is about the batch as a whole, so no row can be set aside: let it stop, hold or warn")

    def check(self) -> None:
        """Refuse arguments that contradict each other.

        Raises:
            DeclarationError: they do.
        """

    def refuse(self, why: str) -> None:
        """Raise a DeclarationError that names the expectation."""
        raise DeclarationError(f"{type(self).__name__}({_written(self.kwargs)}): {why}")

    def default_name(self) -> str:
        """The type without its first words, after the columns."""
        short = re.sub(r"^expect_(column_values_to_|column_|table_)?(be_)?", "", self.type)
        return "_".join([*self.columns, short])

    def default_action(self) -> Action:
        """What follows from a failure unless it is declared."""
        if self.severity != "critical":
            return "warn"
        return "quarantine" if self.by_row else "hold"

    @property
    def type(self) -> str:
        """As Great Expectations writes it, such as ``expect_column_values_to_be_between``."""
        return snake_case(type(self).__name__)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments that differ from their defaults, as Great Expectations writes them."""
        own = (each for each in fields(self) if each.name not in _ABOUT)
        return {each.name: value for each in own if (value := getattr(self, each.name)) != _default(each)}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it judges: what uses none of them can go on when it fails."""
        return ()

    @property
    def reads(self) -> tuple[str, ...]:
        """All columns that it looks at, those of its condition and its groups included."""
        return tuple(dict.fromkeys([*self.columns, *(self.condition.columns if self.condition else ())]))

    @property
    def condition(self) -> RowCondition | None:
        """Which rows it is about, if not all of them."""
        return getattr(self, "row_condition", None)

    @property
    def by_row(self) -> bool:
        """Whether one row alone is enough to judge that row, so that an event can be judged as it arrives."""
        return self.scope == "row" and getattr(self, "mostly", 1.0) >= 1

    @property
    def references(self) -> tuple[str, str, str] | None:
        """(column, other table, its column), if the values must occur there."""
        return None

    @property
    def looks_back_days(self) -> int:
        """How many earlier days of the same table it needs."""
        return 0


@dataclass(frozen=True, kw_only=True)
class RowExpectation(Expectation, ABC):
    """It says of every row whether it is as expected.

    mostly: the share of the rows looked at (0..1) that is enough. row_condition: which rows it is about.
    """

    mostly: float = 1.0
    row_condition: RowCondition | None = None

    scope: ClassVar[Scope] = "row"

    def check(self) -> None:
        """``mostly`` is a share."""
        if not 0 <= self.mostly <= 1:
            self.refuse("mostly is a share, at least 0 and at most 1")

    @abstractmethod
    def expected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether the row is as expected; null where it is not looked at, as a missing value."""

    def holding(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether the row is as expected; null where it is not looked at, by the condition or by itself."""
        expected = self.expected(schema, around)
        return expected if self.condition is None else pl.when(self.condition.expression(schema)).then(expected)

    def surely_met(self, schema: Schema) -> pl.Expr | None:
        """Whether no row fails, where that is far cheaper to say than which rows do; ``None`` if it is not."""
        return None

    def unexpected(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether the row fails."""
        fails = ~self.expected(schema, around).fill_null(True)
        return fails if self.condition is None else fails & self.condition.expression(schema)

    def considered(self, schema: Schema, around: Around) -> pl.Expr:
        """Whether the row is looked at."""
        looked_at = self.expected(schema, around).is_not_null()
        return looked_at if self.condition is None else looked_at & self.condition.expression(schema)


@dataclass(frozen=True, kw_only=True)
class BatchExpectation(Expectation, ABC):
    """It says something of the batch as a whole, in one value."""

    @abstractmethod
    def measured(self, schema: Schema) -> pl.Expr:
        """The value, of all rows of a batch."""

    @abstractmethod
    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed | None:
        """What to say of the value; ``None`` if nothing can be said (too little history)."""

    def summary(self, rows: pl.DataFrame) -> pl.DataFrame | None:
        """What is to be known of each part (column ``part``), those before included; ``None`` if nothing is."""
        return None

    def where(self, values: pl.Expr, schema: Schema) -> pl.Expr:
        """The values of the rows that the condition names."""
        return values if self.condition is None else values.filter(self.condition.expression(schema))


def value_of(column: str, schema: Schema) -> pl.Expr:
    """A column's value; one that is not a number is missing, as in Great Expectations."""
    dtype = schema.get(column)
    known = pl.col(column)
    return known.fill_nan(None) if dtype is not None and dtype.is_float() else known


def snake_case(name: str) -> str:
    """``ExpectColumnValuesToBeNull`` as ``expect_column_values_to_be_null``, by Great Expectations' own rule."""
    parts = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", parts).lower()


def within(value: pl.Expr, low: Any, high: Any, strict_min: bool = False, strict_max: bool = False) -> pl.Expr:
    """Whether the value lies between the bounds, of which one may be ``None``: no bound."""
    if low is not None and high is not None:
        return value.is_between(low, high, closed=_CLOSED[bool(strict_min), bool(strict_max)])
    if low is not None:
        return value.gt(low) if strict_min else value.ge(low)
    return value.lt(high) if strict_max else value.le(high)


def between(value: Any, low: Any, high: Any, strict_min: bool = False, strict_max: bool = False) -> bool:
    """The same of one value; a missing one does not lie anywhere."""
    if value is None or value != value:
        return False
    above = low is None or (value > low if strict_min else value >= low)
    return bool(above and (high is None or (value < high if strict_max else value <= high)))


def bounds(low: Any, high: Any) -> str:
    """Bounds as a name writes them."""
    return f"{_short(low)}_and_{_short(high)}"


def _short(bound: Any) -> str:
    return f"{bound:g}" if isinstance(bound, int | float) and not isinstance(bound, bool) else str(bound).lower()


def _default(declared: Any) -> Any:
    return declared.default_factory() if declared.default_factory is not MISSING else declared.default


def _written(kwargs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in kwargs.items())


def listed(values: Sequence[Any]) -> list[Any]:
    """The first values of a result."""
    return list(values[:SHOWN])
