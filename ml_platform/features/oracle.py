"""The slow, obvious way to a feature's value: look at every row of the entity, one after the other.

Independent of ``windows.py`` on purpose: it is what the served vectors and the windows are compared with.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.spec import KNOWN_AT, Active, Feature, FeatureView, Latest, Window

Row = Mapping[str, Any]
Value = float | int | None
SCALE = 1_000_000


class Oracle:
    """Recomputes one view's values from raw rows."""

    def __init__(self, view: FeatureView, frames: Mapping[str, pl.DataFrame]) -> None:
        """Keep the raw rows by entity. ``frames``: raw tables by name, with all history that may matter."""
        self.view = view
        rows = frames[view.source].with_columns(**view.derive)
        if view.where is not None:
            rows = rows.filter(view.where)
        self._rows: dict[tuple[Any, ...], list[tuple[datetime, Row]]] = defaultdict(list)
        names = view.entity_names
        # Ties in time stand in the order of all their values.
        for row in rows.sort(rows.columns).select(_used(view)).iter_rows(named=True):
            entity = tuple(row[name] for name in names)
            self._rows[entity].append((max(row[view.time], row[KNOWN_AT]), row))
        for found in self._rows.values():
            found.sort(key=lambda pair: pair[0])
        self._closed: dict[tuple[Any, ...], datetime] = {}
        for active in (f for f in view.features if isinstance(f, Active)):
            for table in active.closed_by:
                for row in frames[table].select(*active.key, KNOWN_AT).iter_rows(named=True):
                    key = (active.name, *(row[name] for name in active.key))
                    self._closed[key] = min(row[KNOWN_AT], self._closed.get(key, row[KNOWN_AT]))

    def values(self, entity: tuple[Any, ...], at: datetime) -> dict[str, Value]:
        """Every feature of the entity as it was known at ``at``; all null for an entity that is not named."""
        if None in entity:
            return dict.fromkeys(self.view.schema())
        known = [(counts_from, row) for counts_from, row in self._rows.get(entity, []) if counts_from <= at]
        values: dict[str, Value] = {}
        for feature in self.view.features:
            for name, span, kind in feature.features():
                values[name] = _typed(self._value(feature, span, known, at), kind)
        return values

    def _value(self, feature: Feature, span: timedelta | None, known: list[tuple[datetime, Row]], at: datetime) -> Value:
        if isinstance(feature, Latest):
            newest: Value = known[-1][1][feature.column] if known else None
            return newest
        assert span is not None
        if isinstance(feature, Active):
            return sum(self._is_open(feature, row, at) for _, row in known)
        inside = [row for counts_from, row in known if at - span < counts_from]
        return _aggregate(feature, [row[feature.column] for row in inside if row[feature.column] is not None])

    def _is_open(self, feature: Active, row: Row, at: datetime) -> bool:
        opened = max(row[feature.opened_at], row[KNOWN_AT])
        closed = self._closed.get((feature.name, *(row[name] for name in feature.key)))
        is_closed = closed is not None and closed <= at
        return opened <= at < opened + feature.expires_after and not is_closed


def _used(view: FeatureView) -> list[str]:
    """The columns that the loops look at."""
    used = [*view.entity_names, view.time, KNOWN_AT]
    for feature in view.features:
        used += [feature.opened_at, *feature.key] if isinstance(feature, Active) else [feature.column]
    return list(dict.fromkeys(used))


def _aggregate(feature: Window, values: list[float]) -> Value:
    if feature.aggregate == "count":
        return len(values)
    if feature.aggregate == "sum":
        return _exact_sum(values)
    if not values:
        return None
    match feature.aggregate:
        case "mean" | "share":
            return _exact_sum(values) / len(values)
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "first":
            return values[0]
        case "last":
            return values[-1]
        case "change":
            return values[-1] - values[0]
    raise AssertionError(feature.aggregate)


def _exact_sum(listed: list[float]) -> float:
    if any(isinstance(value, float) for value in listed):
        return sum(round(value * SCALE) for value in listed) / SCALE
    return float(sum(listed))


def _typed(value: Value, kind: str) -> Value:
    if value is None:
        return None
    return int(value) if kind == "int64" else float(value)

