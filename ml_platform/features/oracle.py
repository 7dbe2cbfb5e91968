"""The obvious way to a feature's value: take the entity's events that lie in the window, and go through them.

Independent of ``windows.py`` on purpose: it is what the served vectors and the windows are compared with.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from operator import itemgetter
from typing import Any

import polars as pl

from ml_platform.spec import KNOWN_AT, Active, FeatureView, Latest, Window

Key = tuple[Any, ...]
Value = float | int | None
_Rows = list[tuple[int, int | None, tuple[Any, ...]]]  # from when a row counts, until when, its values; in this order
_Lives = list[tuple[int, int | None, int | None]]  # when a fact opened, when it was superseded, when it was closed
_counts_from = itemgetter(0)
SCALE = 1_000_000
_ENDS = "_ends"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


class Oracle:
    """Recomputes one view's values from raw rows."""

    def __init__(self, view: FeatureView, frames: Mapping[str, pl.DataFrame], *, since: datetime | None = None) -> None:
        """Keep each entity's rows, in order, with the moments (unix microseconds) between which each counts.

        A row of which a later version is known (of the same key) counts until that became known.

        frames: raw tables by name, with all history that may matter.
        since: no moment before it is asked for, so that rows which left a window before need not be looked at again.
        """
        self.view = view
        self._since = _micros(since) if since is not None else None
        rows = frames[view.source].with_columns(**view.derive)
        rows = rows.with_columns(pl.Series(_ENDS, _ends(view, rows), pl.Int64))
        if view.where is not None:
            rows = rows.filter(view.where)
        rows = rows.sort(view.key or rows.columns)  # ties in time stand in the order of their keys
        times = [
            max(time, known) for time, known in zip(_moments(rows, view.time), _moments(rows, KNOWN_AT), strict=True)
        ]
        entities = list(rows.select(view.entity_names).iter_rows())
        columns = list(dict.fromkeys(f.column for f in view.features if not isinstance(f, Active)))
        self._place = {column: n for n, column in enumerate(columns)}
        values = list(rows.select(columns).iter_rows()) if columns else [()] * len(entities)
        self._events: dict[Key, _Rows] = {}
        ends = rows[_ENDS].to_list()
        for n in sorted(range(len(times)), key=times.__getitem__):
            self._events.setdefault(entities[n], []).append((times[n], ends[n], values[n]))
        self._open = {
            feature.name: _lives(feature, rows, entities, frames, self._since)
            for feature in view.features
            if isinstance(feature, Active)
        }

    def values(self, entity: Key, at: datetime) -> dict[str, Value]:
        """Every feature of the entity as it was known at ``at``; all null for an entity that is not named."""
        if None in entity:
            return dict.fromkeys(self.view.schema())
        now = _micros(at)
        inside: dict[timedelta, list[tuple[Any, ...]]] = {}
        values: dict[str, Value] = {}
        for feature in self.view.features:
            for name, span, kind in feature.features():
                if isinstance(feature, Active):
                    lives = self._open[feature.name].get(entity, [])
                    expiry = feature.expires_after // _TICK
                    value: Value = sum(
                        _is_open(opened, closed, now, expiry)
                        for opened, ends, closed in lives
                        if ends is None or now < ends
                    )
                elif isinstance(feature, Latest):
                    events = self._events.get(entity, [])
                    known = events[: bisect_right(events, now, key=_counts_from)]
                    holds = (row for _, ends, row in reversed(known) if ends is None or now < ends)
                    newest = next(holds, None)
                    value = None if newest is None else newest[self._place[feature.column]]
                else:
                    assert span is not None
                    if span not in inside:
                        events = self._events.get(entity, [])
                        # After the window's beginning, which does not belong to it, up to now, which does.
                        first, last = (
                            bisect_right(events, end, key=_counts_from) for end in (now - span // _TICK, now)
                        )
                        inside[span] = [row for _, ends, row in events[first:last] if ends is None or now < ends]
                    place = self._place[feature.column]
                    value = _aggregate(feature, [row[place] for row in inside[span] if row[place] is not None])
                values[name] = _typed(value, kind)
        return values


def _moments(rows: pl.DataFrame, column: str) -> list[int]:
    return rows[column].dt.epoch("us").to_list()


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _TICK


def _lives(
    active: Active,
    rows: pl.DataFrame,
    entities: Sequence[Key],
    frames: Mapping[str, pl.DataFrame],
    since: int | None,
) -> dict[Key, _Lives]:
    """When each row of an entity opened its fact, was superseded and, as far as known, saw its fact closed.

    Without those that nobody counts at ``since`` or later.
    """
    closed: dict[Key, int] = {}
    for table in active.closed_by:
        keys = frames[table].select(active.key).iter_rows()
        for key, known in zip(keys, _moments(frames[table], KNOWN_AT), strict=True):
            closed[key] = min(known, closed.get(key, known))
    lives: dict[Key, _Lives] = {}
    expiry = active.expires_after // _TICK
    opened = zip(_moments(rows, active.opened_at), _moments(rows, KNOWN_AT), strict=True)
    keys = rows.select(active.key).iter_rows()
    for entity, key, ends, moments in zip(entities, keys, rows[_ENDS].to_list(), opened, strict=True):
        start, end = max(moments), closed.get(key)
        if since is None or (start + expiry > since and (end is None or end > since)):
            lives.setdefault(entity, []).append((start, ends, end))
    return lives


def _ends(view: FeatureView, rows: pl.DataFrame) -> list[int | None]:
    """For each row when a later version of its fact became known: another row of the same key, known later.

    Of two that became known at the same moment the one holds of which the view makes more: one that counts, then the
    greater entity, time, values. Of two that are alike to the view, the second.
    """
    ends: list[int | None] = [None] * rows.height
    if not view.key or not rows.select(view.key).is_duplicated().any():
        return ends
    facts: dict[Key, list[int]] = {}
    for n, key in enumerate(rows.select(view.key).iter_rows()):
        if None not in key:
            facts.setdefault(key, []).append(n)
    for several in (places for places in facts.values() if len(places) > 1):
        versions = _versions(view, rows[several])
        for n, version in zip(several, versions, strict=True):
            ends[n] = min((other[0] for other in versions if other > version), default=None)
    return ends


def _versions(view: FeatureView, rows: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Something for each row of one fact that is greater the later the version."""
    known, times = _moments(rows, KNOWN_AT), _moments(rows, view.time)
    holds = [True] * rows.height if view.where is None else rows.with_columns(_holds=view.where)["_holds"].to_list()
    named = list(rows.select(view.entity_names).iter_rows())
    made: list[list[Any]] = [
        [bool(holds[n]) and None not in named[n], *named[n], max(times[n], known[n])] for n in range(rows.height)
    ]
    for column in dict.fromkeys(f.column for f in view.features if not isinstance(f, Active)):
        for n, value in enumerate(rows[column].to_list()):
            made[n].append(value)
    for feature in view.features:
        if isinstance(feature, Active):
            opened = _moments(rows, feature.opened_at)
            for n, key in enumerate(rows.select(feature.key).iter_rows()):
                made[n] += [*key, max(opened[n], known[n])]
    return [(known[n], [(value is not None, value) for value in made[n]], n) for n in range(rows.height)]


def _is_open(opened: int, closed: int | None, at: int, expires_after: int) -> bool:
    is_closed = closed is not None and closed <= at
    return opened <= at < opened + expires_after and not is_closed


def _aggregate(feature: Window, values: list[float]) -> Value:
    if feature.aggregate == "count":
        return len(values)
    if feature.aggregate == "distinct":
        return len(set(values))
    if feature.aggregate == "sum":
        return _exact_sum(values)
    if not values:
        return None
    match feature.aggregate:
        case "mean" | "share":
            return _exact_sum(values) / len(values)
        case "std":
            return _exact_std(values)
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


def _exact_std(values: list[float]) -> float | None:
    """Squared distances from the mean, as fractions: nothing is rounded before the root."""
    if len(values) < 2:
        return None
    scale = SCALE if isinstance(values[0], float) else 1
    exact = [Fraction(round(value * scale)) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / (len(exact) - 1)
    return math.sqrt(variance) / scale


def _typed(value: Value, kind: str) -> Value:
    if value is None:
        return None
    return int(value) if kind == "int64" else float(value)
