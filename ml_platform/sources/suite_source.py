"""Expectations as the Python of a declaration."""

from datetime import timedelta
from typing import Any

import polars as pl

from ml_platform.sources.suites import Imported
from ml_platform.spec.expectations import Expectation
from ml_platform.spec.expectations.conditions import Comparison, Group, Nullity

_METHODS = {"IN": "is_in", "NOT_IN": "is_not_in"}


def declaration(found: Imported) -> str:
    """What to paste into a table's file; what cannot be expressed stands there as comments."""
    lines = [
        "from ml_platform.spec import expectations as gxe",
        "",
        f"# of the suite {found.name}" if found.name else "",
    ]
    if any(isinstance(getattr(rule, "holds", None), pl.Expr) for rule in found.expectations):
        lines = ["import io", "", "import polars as pl", *lines]
    if any(isinstance(value, timedelta) for rule in found.expectations for value in rule.kwargs.values()):
        lines = ["from datetime import timedelta", *lines]
    lines += ["rules=(", *(f"    {written(rule)}," for rule in found.expectations), ")"]
    return "\n".join([*lines, *(f"# cannot be expressed: {why}" for why in found.left_out), ""])


def written(rule: Expectation) -> str:
    """One expectation as it is declared: the arguments that differ from their defaults."""
    given = {name: getattr(rule, name) for name in rule.kwargs}
    plain = type(rule)(**given, severity=rule.severity, name=rule.name)
    if plain.action != rule.action:
        given["action"] = rule.action
    if rule.severity != "critical":
        given["severity"] = rule.severity
    if rule.notes:
        given["notes"] = rule.notes
    if isinstance(getattr(rule, "holds", None), pl.Expr) or type(rule)(**given).name != rule.name:
        given["name"] = rule.name
    return f"gxe.{type(rule).__name__}({', '.join(f'{name}={_value(value)}' for name, value in given.items())})"


def _value(value: Any) -> str:
    if isinstance(value, pl.Expr):
        return f'pl.Expr.deserialize(io.StringIO({value.meta.serialize(format="json")!r}), format="json")'
    if isinstance(value, Comparison | Nullity | Group):
        return _condition(value)
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    return repr(value)


def _condition(told: Any) -> str:
    if isinstance(told, Group):
        sign = " & " if told.kind == "and" else " | "
        return sign.join(f"({_condition(each)})" for each in told.conditions)
    column = f"gxe.Column({told.column!r})"
    if isinstance(told, Nullity):
        return f"{column}.is_null()" if told.is_null else f"{column}.is_not_null()"
    if told.operator in _METHODS:
        return f"{column}.{_METHODS[told.operator]}({list(told.parameter)!r})"
    return f"{column} {told.operator} {told.parameter!r}"
