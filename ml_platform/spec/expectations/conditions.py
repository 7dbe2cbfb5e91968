"""Which rows an expectation is about: conditions as Great Expectations writes them (``row_condition``)."""

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ml_platform.spec.errors import DeclarationError
from ml_platform.spec.expectations.members import members

_OPERATORS: Mapping[str, Callable[[pl.Expr, Any], pl.Expr]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MEMBER = ("IN", "NOT_IN")
# Great Expectations' older way to write one: col("age") > 18, col("name") == "a", col("name").notnull().
_OLD = re.compile(r"""^\s*col\(\s*["'](?P<column>[^"']+)["']\s*\)\s*(?P<rest>.*?)\s*$""")
_OLD_COMPARISON = re.compile(r"""^(?P<sign>==|!=|<=|>=|<|>)\s*(?:["'](?P<text>.*)["']|(?P<number>-?[\d.]+))$""")


@dataclass(frozen=True)
class RowCondition(ABC):
    """A condition on one row, which two of them make another: ``a & b``, ``a | b``."""

    def __and__(self, other: "RowCondition") -> "RowCondition":
        """Both hold."""
        return Group(kind="and", conditions=(self, other))

    def __or__(self, other: "RowCondition") -> "RowCondition":
        """At least one holds."""
        return Group(kind="or", conditions=(self, other))

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""

    @abstractmethod
    def expression(self, schema: Mapping[str, Any]) -> pl.Expr:
        """Whether it holds, never null: a missing value differs from every value and is no part of any order."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """As it stands in a suite file."""


@dataclass(frozen=True, kw_only=True)
class Comparison(RowCondition):
    """``column operator parameter``; ``IN`` and ``NOT_IN`` take a list."""

    column: str
    operator: str
    parameter: Any

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        if self.operator not in (*_OPERATORS, *_MEMBER):
            known = ", ".join((*_OPERATORS, *_MEMBER))
            raise DeclarationError(f"row_condition on {self.column!r}: no operator {self.operator!r}; known: {known}")
        if self.parameter is None:
            raise DeclarationError(f"row_condition on {self.column!r} compares with nothing; ask is_null() instead")
        if self.operator in _MEMBER:
            object.__setattr__(self, "parameter", tuple(self.parameter))

    @property
    def columns(self) -> tuple[str, ...]:
        """Its column."""
        return (self.column,)

    def expression(self, schema: Mapping[str, Any]) -> pl.Expr:
        """Whether it holds."""
        value = _value(self.column, schema)
        if self.operator in _MEMBER:
            found = value.is_in(members(self.parameter, schema[self.column]).implode()).fill_null(False)
            return found if self.operator == "IN" else ~found
        given = self.parameter
        if isinstance(given, str) and schema[self.column].is_temporal():  # as a suite file writes a time
            given = members([given], schema[self.column])[0]
        return _OPERATORS[self.operator](value, given).fill_null(self.operator == "!=")

    def as_dict(self) -> dict[str, Any]:
        """As in a suite file."""
        given = list(self.parameter) if self.operator in _MEMBER else self.parameter
        told = {"column": {"name": self.column}, "operator": self.operator, "parameter": given}
        return {"type": "comparison", **told}


@dataclass(frozen=True, kw_only=True)
class Nullity(RowCondition):
    """The value is missing, or is not."""

    column: str
    is_null: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Its column."""
        return (self.column,)

    def expression(self, schema: Mapping[str, Any]) -> pl.Expr:
        """Whether it holds."""
        value = _value(self.column, schema)
        return value.is_null() if self.is_null else value.is_not_null()

    def as_dict(self) -> dict[str, Any]:
        """As in a suite file."""
        return {"type": "nullity", "column": {"name": self.column}, "is_null": self.is_null}


@dataclass(frozen=True, kw_only=True)
class Group(RowCondition):
    """``and`` or ``or`` of several."""

    kind: str
    conditions: tuple[RowCondition, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of all of them."""
        return tuple(dict.fromkeys(name for each in self.conditions for name in each.columns))

    def expression(self, schema: Mapping[str, Any]) -> pl.Expr:
        """Whether it holds."""
        parts = [each.expression(schema) for each in self.conditions]
        return pl.all_horizontal(parts) if self.kind == "and" else pl.any_horizontal(parts)

    def as_dict(self) -> dict[str, Any]:
        """As in a suite file."""
        return {"type": self.kind, "conditions": [each.as_dict() for each in self.conditions]}


@dataclass(frozen=True, eq=False)
class Column:
    """A column in a condition, as in Great Expectations: ``Column("origin") == "JFK"``."""

    name: str

    def __eq__(self, other: object) -> Comparison:  # type: ignore[override]
        """Equal to a value."""
        return self._than("==", other)

    def __ne__(self, other: object) -> Comparison:  # type: ignore[override]
        """Different from a value."""
        return self._than("!=", other)

    def __lt__(self, other: Any) -> Comparison:
        """Below a value."""
        return self._than("<", other)

    def __le__(self, other: Any) -> Comparison:
        """At most a value."""
        return self._than("<=", other)

    def __gt__(self, other: Any) -> Comparison:
        """Above a value."""
        return self._than(">", other)

    def __ge__(self, other: Any) -> Comparison:
        """At least a value."""
        return self._than(">=", other)

    __hash__ = object.__hash__

    def is_in(self, values: Any) -> Comparison:
        """One of several values."""
        return self._than("IN", values)

    def is_not_in(self, values: Any) -> Comparison:
        """None of several values."""
        return self._than("NOT_IN", values)

    def is_null(self) -> Nullity:
        """Missing."""
        return Nullity(column=self.name, is_null=True)

    def is_not_null(self) -> Nullity:
        """There."""
        return Nullity(column=self.name, is_null=False)

    def _than(self, sign: str, other: Any) -> Comparison:
        return Comparison(column=self.name, operator=sign, parameter=other)


def condition_of(told: Any) -> RowCondition | None:
    """The condition that a suite file holds, written as an object or in Great Expectations' older way.

    Raises:
        DeclarationError: it is written for another engine (pandas, Spark, SQL), or is none.
    """
    if told is None or isinstance(told, RowCondition):
        return told
    if isinstance(told, str):
        return _old(told)
    kind = told.get("type")
    if kind in ("and", "or"):
        found = [condition_of(each) for each in told["conditions"]]
        return Group(kind=kind, conditions=tuple(each for each in found if each is not None))
    if kind == "nullity":
        return Nullity(column=told["column"]["name"], is_null=bool(told["is_null"]))
    if kind == "comparison":
        return Comparison(column=told["column"]["name"], operator=told["operator"], parameter=told["parameter"])
    raise DeclarationError(
        f"row_condition {told!r} is written for another engine; write it as a condition on columns, such as "
        f'Column("age") > 18'
    )


def _old(text: str) -> RowCondition:
    named = _OLD.match(text)
    rest = named["rest"] if named else ""
    if named and rest == ".notnull()":
        return Nullity(column=named["column"], is_null=False)
    compared = _OLD_COMPARISON.match(rest)
    if not named or not compared:
        raise DeclarationError(
            f"row_condition {text!r} is no comparison of a column with a value; write it as a condition on columns, "
            f'such as Column("age") > 18'
        )
    number = compared["number"]
    value = compared["text"] if number is None else float(number) if "." in number else int(number)
    return Comparison(column=named["column"], operator=compared["sign"], parameter=value)


def _value(column: str, schema: Mapping[str, Any]) -> pl.Expr:
    dtype = schema.get(column)
    return pl.col(column).fill_nan(None) if dtype is not None and dtype.is_float() else pl.col(column)
