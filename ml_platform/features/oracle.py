"""The slow, obvious way to a feature's value: look at every event of the entity, one after the other.

Independent of ``windows.py`` on purpose: it is what the served vectors and the windows are compared with.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.spec import KNOWN_AT, Active, FeatureView, Latest, Window

Key = tuple[Any, ...]
Value = float | int | None
SCALE = 1_000_000


class Oracle:
    """Recomputes one view's values from raw rows."""

    def __init__(self, view: FeatureView, frames: Mapping[str, pl.DataFrame]) -> None:
        """Keep each entity's events, in order, as (moment from which it counts, value) for each column used.

        frames: raw tables by name, with all history that may matter.
        """
        self.view = view
        rows = frames[view.source].with_columns(**view.derive)
        if view.where is not None:
            rows = rows.filter(view.where)
        rows = rows.sort(rows.columns)  # ties in time stand in the order of all their values
        times = [max(time, known) for time, known in zip(rows[view.time], rows[KNOWN_AT], strict=True)]
        order = sorted(range(len(times)), key=times.__getitem__)
        entities = list(rows.select(view.entity_names).iter_rows())
        columns = {feature.column for feature in view.features if not isinstance(feature, Active)}
        self._events: dict[str, dict[Key, list[tuple[datetime, Any]]]] = {}
        for column in columns:
            values = rows[column].to_list()
            by_entity = self._events[column] = {}
            for n in order:
                by_entity.setdefault(entities[n], []).append((times[n], values[n]))
        self._open: dict[str, dict[Key, list[tuple[datetime, datetime | None]]]] = {}
        for active in (feature for feature in view.features if isinstance(feature, Active)):
            self._open[active.name] = _lives(active, rows, entities, frames)

    def values(self, entity: Key, at: datetime) -> dict[str, Value]:
        """Every feature of the entity as it was known at ``at``; all null for an entity that is not named."""
        if None in entity:
            return dict.fromkeys(self.view.schema())
        values: dict[str, Value] = {}
        for feature in self.view.features:
            for name, span, kind in feature.features():
                values[name] = _typed(self._value(feature, span, entity, at), kind)
        return values

    def _value(self, feature: Window | Active | Latest, span: timedelta | None, entity: Key, at: datetime) -> Value:
        if isinstance(feature, Active):
            lives = self._open[feature.name].get(entity, [])
            return sum(_is_open(opened, closed, at, feature.expires_after) for opened, closed in lives)
        events = self._events[feature.column].get(entity, [])
        if isinstance(feature, Latest):
            known = [value for counts_from, value in events if counts_from <= at]
            return known[-1] if known else None
        assert span is not None
        inside = [value for counts_from, value in events if at - span < counts_from <= at and value is not None]
        return _aggregate(feature, inside)


def _lives(
    active: Active, rows: pl.DataFrame, entities: Sequence[Key], frames: Mapping[str, pl.DataFrame]
) -> dict[Key, list[tuple[datetime, datetime | None]]]:
    """When each fact of an entity was opened and, as far as known, closed."""
    closed: dict[Key, datetime] = {}
    for table in active.closed_by:
        for *key, known in frames[table].select(*active.key, KNOWN_AT).iter_rows():
            closed[tuple(key)] = min(known, closed.get(tuple(key), known))
    lives: dict[Key, list[tuple[datetime, datetime | None]]] = {}
    columns = rows.select(active.opened_at, KNOWN_AT, *active.key).iter_rows()
    for entity, (opened, known, *key) in zip(entities, columns, strict=True):
        lives.setdefault(entity, []).append((max(opened, known), closed.get(tuple(key))))
    return lives


def _is_open(opened: datetime, closed: datetime | None, at: datetime, expires_after: timedelta) -> bool:
    is_closed = closed is not None and closed <= at
    return opened <= at < opened + expires_after and not is_closed


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


def _exact_sum(values: list[float]) -> float:
    if values and isinstance(values[0], float):
        return sum(round(value * SCALE) for value in values) / SCALE
    return float(sum(values))


def _typed(value: Value, kind: str) -> Value:
    if value is None:
        return None
    return int(value) if kind == "int64" else float(value)
