"""Feature views and what they are made of: values of an entity that are exact at any moment."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Literal

import polars as pl

Aggregate = Literal["count", "sum", "mean", "std", "min", "max", "first", "last", "change", "share", "distinct"]
ZERO_WHEN_EMPTY = ("count", "sum", "distinct")
COUNTS = ("count", "distinct")  # whole numbers; they take columns of any type
FIXED_POINT = 1_000_000  # floats are summed in steps of this part, so that every order of summing gives the same bits


def feature_name(view: str, feature: str) -> str:
    """A feature's full name, in a model's input and wherever several views stand side by side: Feast's way."""
    return f"{view}__{feature}"


def span_name(span: timedelta) -> str:
    """A duration as it stands in feature names: ``90m``, ``3h``, ``14d``."""
    minutes = int(span.total_seconds()) // 60
    if minutes % 1440 == 0:
        return f"{minutes // 1440}d"
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


@dataclass(frozen=True, kw_only=True)
class Entity:
    """What a feature describes; ``name`` is the join key's column."""

    name: str
    dtype: Literal["string", "int64"] = "string"
    description: str = ""


@dataclass(frozen=True)
class Window:
    """An aggregate of a column over the rows with effective time in (t - w, t], for every w of ``over``.

    Null values of the column are left out. ``share`` is the mean of a Boolean column; ``change`` is last minus
    first; ``std`` is the sample standard deviation, null for fewer than two values; ``distinct`` counts different
    values. Sums, means and deviations of floats are taken in fixed point (1e-6), so that every way of computing them
    agrees bit for bit. An empty window gives 0 for ``count``, ``sum`` and ``distinct``, null for the others.
    """

    column: str
    aggregate: Aggregate
    over: tuple[timedelta, ...]
    name: str | None = None

    def features(self) -> Iterator[tuple[str, timedelta, str]]:
        """(feature name, window, value type) in declared order."""
        for span in self.over:
            value_type = "int64" if self.aggregate in COUNTS else "float64"
            yield f"{self.name or f'{self.column}_{self.aggregate}'}_{span_name(span)}", span, value_type


@dataclass(frozen=True)
class Active:
    """How many facts are open at t: opened at ``opened_at``, not yet closed, and younger than ``expires_after``.

    Closed by the first row known in any of the tables ``closed_by`` that shares ``key``: what is not known at t
    does not close anything at t.
    """

    opened_at: str
    closed_by: tuple[str, ...]
    key: tuple[str, ...]
    expires_after: timedelta
    name: str

    def features(self) -> Iterator[tuple[str, timedelta, str]]:
        """(feature name, expiry, value type)."""
        yield f"{self.name}_{span_name(self.expires_after)}", self.expires_after, "int64"


@dataclass(frozen=True)
class Latest:
    """The column's value in the entity's newest row."""

    column: str
    value_type: Literal["int64", "float64"] = "float64"
    name: str | None = None

    def features(self) -> Iterator[tuple[str, None, str]]:
        """(feature name, no window, value type)."""
        yield self.name or self.column, None, self.value_type


Feature = Window | Active | Latest


@dataclass(frozen=True, kw_only=True)
class FeatureView:
    """Features of one entity from one raw table; it becomes the asset ``features/<name>``.

    source: the raw table whose rows are the events.
    time: the column that places a row in its windows. A row counts from the later of it and ``known_at``, so
        nothing is ever computed from rows known later.
    derive: columns computed row by row before anything else (name -> expression over the raw columns).
    where: rows that count; others are left out.
    key: columns that name the source's facts, its table's ``key``: filled in when the project is loaded. Of rows with
        the same key the newest known counts, alone; rows of the same moment stand in its order.
    online_for: how long a value may be asked for online, for entities that come and go (a flight, an hour); older
        ones are neither published nor kept there. ``None``: the newest value is kept for good.
    """

    source: str
    entities: tuple[Entity, ...]
    features: tuple[Feature, ...]
    description: str
    time: str = "known_at"
    derive: Mapping[str, pl.Expr] = field(default_factory=dict)
    where: pl.Expr | None = None
    online_for: timedelta | None = None
    fresh_within: timedelta = timedelta(hours=26)
    owner: str = "team:data-science"
    name: str = ""
    key: tuple[str, ...] = ()

    @property
    def entity_names(self) -> tuple[str, ...]:
        """The join keys, in declared order."""
        return tuple(entity.name for entity in self.entities)

    def schema(self) -> dict[str, str]:
        """Feature name -> value type (``int64`` or ``float64``), in declared order."""
        return self._schema.copy()

    @cached_property
    def _schema(self) -> dict[str, str]:
        # Spelled out once: serving asks for it with every request, of every view.
        return {name: kind for feature in self.features for name, _, kind in feature.features()}

    def empty(self) -> dict[str, int | float | None]:
        """The values of an entity without any row in reach: 0 where it is counted or summed, else missing.

        So a value depends on its window alone, never on whether the entity was seen before it.
        """
        values: dict[str, int | float | None] = dict.fromkeys(self.schema())
        for feature in self.features:
            if isinstance(feature, Active) or (isinstance(feature, Window) and feature.aggregate in ZERO_WHEN_EMPTY):
                values |= {name: 0 if kind == "int64" else 0.0 for name, _, kind in feature.features()}
        return values

    @property
    def is_live(self) -> bool:
        """Whether values are windows, computed at the moment asked, instead of the newest one stored."""
        return not any(isinstance(feature, Latest) for feature in self.features)

    @property
    def lookback(self) -> timedelta:
        """How far back a value can depend on events; zero if only on the newest row."""
        spans = [span for feature in self.features for _, span, _ in feature.features() if span is not None]
        return max(spans, default=timedelta(0))

    @property
    def sources(self) -> tuple[str, ...]:
        """Every raw table that is read, the main one first."""
        closers = [table for f in self.features if isinstance(f, Active) for table in f.closed_by]
        return tuple(dict.fromkeys([self.source, *closers]))
