"""A contract as a suite file of Great Expectations (JSON), and back.

The file is one that Great Expectations reads: its own types stand under ``expectations``, with what it has no word for
(action, a name that was given) in their ``meta``. Types of ours stand under the suite's ``meta``, which it passes over.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import polars as pl

from ml_platform.spec import DeclarationError, SourceTable
from ml_platform.spec.expectations import BY_TYPE, Expectation, RowCondition
from ml_platform.spec.expectations.conditions import condition_of

MARK = "ml_platform"
_MADE_FOR = "1.24.1"  # the version whose vocabulary this is
# Arguments of Great Expectations that say how it runs, not what is expected.
_OF_ITS_RUNS = ("condition_parser", "batch_id", "catch_exceptions", "result_format", "include_config")
_TIMEDELTA = "seconds"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What a suite file holds: the expectations, and what cannot be expressed here, with why."""

    name: str
    expectations: tuple[Expectation, ...]
    left_out: tuple[str, ...]


def as_suite(table: SourceTable) -> dict[str, Any]:
    """The contract of a table as the content of a suite file."""
    ours = [as_suite_entry(rule) for rule in table.rules if rule.own]
    meta: dict[str, Any] = {"great_expectations_version": _MADE_FOR, MARK: {"table": table.name, "expectations": ours}}
    theirs = [as_suite_entry(rule) for rule in table.rules if not rule.own]
    return {"name": table.name, "expectations": theirs, "meta": meta, "id": None, "notes": None}


def as_suite_entry(rule: Expectation) -> dict[str, Any]:
    """One expectation as it stands in a suite file."""
    plain = type(rule)(**{**_given(rule), "name": "", "action": None}) if not _needs_name(rule) else rule
    said = {name: getattr(rule, name) for name in ("action", "name") if getattr(rule, name) != getattr(plain, name)}
    if _needs_name(rule):
        said = {"name": rule.name, "action": rule.action}
    entry: dict[str, Any] = {
        "type": rule.type,
        "kwargs": {name: _plain(value) for name, value in rule.kwargs.items()},
        "severity": rule.severity,
        "meta": {MARK: said} if said else {},
    }
    return {**entry, "notes": rule.notes} if rule.notes else entry


def from_suite(told: Mapping[str, Any]) -> Imported:
    """The expectations of a suite file's content, those of ours included.

    Raises:
        DeclarationError: it is no suite.
    """
    if not isinstance(told, Mapping) or not isinstance(told.get("expectations"), list):
        raise DeclarationError("this is no suite file of Great Expectations: it holds no list of expectations")
    meta = told.get("meta") or {}
    ours = (meta.get(MARK) or {}).get("expectations", [])
    found: list[Expectation] = []
    left_out: list[str] = []
    for entry in [*told["expectations"], *ours]:
        try:
            found.append(_from_entry(entry))
        except (DeclarationError, TypeError, KeyError, ValueError) as error:
            kind = entry.get("type") or entry.get("expectation_type") if isinstance(entry, Mapping) else entry
            left_out.append(f"{kind}: {error}")
    name = told.get("name") or told.get("expectation_suite_name") or ""
    return Imported(name=str(name), expectations=tuple(found), left_out=tuple(left_out))


def read_suite(text: str) -> Imported:
    """The expectations of a suite file.

    Raises:
        DeclarationError: the text is no JSON, or no suite.
    """
    try:
        return from_suite(json.loads(text))
    except json.JSONDecodeError as error:
        raise DeclarationError(f"this is no suite file of Great Expectations: it is no JSON ({error})") from error


def _from_entry(entry: Mapping[str, Any]) -> Expectation:
    kind = entry.get("type") or entry.get("expectation_type")  # before 1.0 it was called otherwise
    if kind not in BY_TYPE:
        raise DeclarationError("nothing here says the same; write it as an invariant")
    known = {each.name for each in fields(BY_TYPE[kind])}
    given = {name: value for name, value in entry.get("kwargs", {}).items() if name not in _OF_ITS_RUNS}
    unknown = sorted(set(given) - known)
    if unknown:
        raise DeclarationError(f"the arguments {', '.join(unknown)} are not known here")
    for name, value in given.items():
        if isinstance(value, Mapping) and "$PARAMETER" in value:
            raise DeclarationError(f"{name} is a suite parameter ({value['$PARAMETER']}); write its value")
    said: dict[str, Any] = dict((entry.get("meta") or {}).get(MARK) or {})
    notes = entry.get("notes") or entry.get("description") or ""
    more = {
        "severity": entry.get("severity") or "critical",
        "notes": "\n".join(notes) if isinstance(notes, list) else notes,
    }
    thing: Callable[..., Expectation] = BY_TYPE[kind]
    return thing(**{name: _held(name, value) for name, value in given.items()}, **more, **said)


def _given(rule: Expectation) -> dict[str, Any]:
    return {each.name: getattr(rule, each.name) for each in fields(rule)}


def _needs_name(rule: Expectation) -> bool:
    return isinstance(getattr(rule, "holds", None), pl.Expr)


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, RowCondition):
        return value.as_dict()
    if isinstance(value, timedelta):
        return {_TIMEDELTA: value.total_seconds()}
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value


def _held(name: str, value: Any) -> Any:
    """As a declaration holds it."""
    if name == "row_condition":
        return condition_of(value)
    if name == "holds":
        return pl.Expr.deserialize(io.StringIO(value), format="json")
    if isinstance(value, Mapping) and set(value) == {_TIMEDELTA}:
        return timedelta(seconds=value[_TIMEDELTA])
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def installed() -> str | None:
    """The version of Great Expectations that is installed, if any."""
    try:
        return version("great-expectations")
    except PackageNotFoundError:
        return None
