"""Source tables and their contracts: what a team declares about data that comes from outside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

Action = Literal["quarantine", "stop"]
KNOWN_AT = "known_at"
Reader = Callable[[datetime, datetime], pl.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One line of a contract: a condition that holds for a good row.

    ``quarantine`` sets a bad row aside with the rule's name as its reason; ``stop`` refuses the whole batch.
    A rule with ``references`` asks that the column's value occurs in another raw table's column.
    """

    name: str
    holds: pl.Expr | None = None
    references: tuple[str, str, str] | None = None
    action: Action = "quarantine"
    column: str | None = None


def not_null(*columns: str, action: Action = "quarantine") -> tuple[Rule, ...]:
    """One rule a column: its value is never null."""
    return tuple(
        Rule(name=f"{column}_not_null", holds=pl.col(column).is_not_null(), action=action, column=column)
        for column in columns
    )


def between(column: str, low: float, high: float, *, action: Action = "quarantine") -> Rule:
    """The value, where there is one, lies in [low, high] (units of the column)."""
    holds = pl.col(column).is_between(low, high) | pl.col(column).is_null()
    return Rule(name=f"{column}_between_{low:g}_and_{high:g}", holds=holds, action=action, column=column)


def is_in(column: str, values: tuple[str, ...], *, action: Action = "quarantine") -> Rule:
    """The value is one of a closed list."""
    holds = pl.col(column).is_in(list(values)).fill_null(False)
    return Rule(name=f"{column}_is_known", holds=holds, action=action, column=column)


def refers_to(column: str, table: str, other: str, *, action: Action = "quarantine") -> Rule:
    """The value occurs in ``raw/<table>.<other>``."""
    return Rule(name=f"{column}_in_{table}", references=(column, table, other), action=action, column=column)


def invariant(name: str, holds: pl.Expr, *, action: Action = "quarantine") -> Rule:
    """Any condition over the columns of one row; null means it does not apply."""
    return Rule(name=name, holds=holds.fill_null(True), action=action)


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """A table that enters from outside; it becomes the asset ``raw/<name>``.

    read: called with a half-open UTC interval, returns the rows whose ``known_at`` lies in it, with ``columns``.
        A reference table (``partitioned=False``) is read whole.
    columns: name -> Polars type, ``known_at`` (UTC, microseconds) included.
    key: columns that name the fact of a row. A row with the same key and a later ``known_at`` is a correction: from
        then on it holds in place of the earlier one. A copy with the same ``known_at`` is quarantined as
        ``duplicate_key``.
    known_at_source: where ``known_at`` comes from, and whether it is assumed.
    max_quarantined: largest share of a batch (0..1) that may be set aside before the batch is refused.
    fresh_within: how old the newest data may be; ``None`` only for reference tables.
    """

    read: Reader
    columns: Mapping[str, pl.DataType | type[pl.DataType]]
    key: tuple[str, ...]
    description: str
    known_at_source: str
    rules: tuple[Rule, ...] = ()
    partitioned: bool = True
    max_quarantined: float = 0.02
    fresh_within: timedelta | None = None
    may_be_empty: bool = False
    owner: str = "team:data-engineering"
    tags: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
