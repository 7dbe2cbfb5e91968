"""Source tables and their contracts: what a team declares about data that comes from outside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from ml_platform.spec.expectations import Expectation

KNOWN_AT = "known_at"
Reader = Callable[[datetime, datetime], pl.DataFrame]


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
    rules: the contract, in Great Expectations' vocabulary (``ml_platform.spec.expectations``).
    max_quarantined: largest share of a batch (0..1) that may be set aside before the batch is refused.
    fresh_within: how old the newest data may be; ``None`` only for reference tables.
    """

    read: Reader
    columns: Mapping[str, pl.DataType | type[pl.DataType]]
    key: tuple[str, ...]
    description: str
    known_at_source: str
    rules: tuple[Expectation, ...] = ()
    partitioned: bool = True
    max_quarantined: float = 0.02
    fresh_within: timedelta | None = None
    may_be_empty: bool = False
    owner: str = "team:data-engineering"
    tags: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
