"""Values of feature views, exact at any moment: prefix sums over each entity's events, read by binary search.

A feature table is a *change log* on a grid: it holds a row for an entity at a grid step only where a value differs
from the step before, so one computation serves training (join the newest row) and the online store (publish the row).
An entity whose windows are all empty has the values of ``FeatureView.empty()``, whether it was ever seen or not.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from ml_platform.features.aggregates import Floats, Ints, Numbers, Values, aggregate
from ml_platform.features.corrections import ENDS, corrected, counts, effective, with_ends
from ml_platform.features.key_codes import ABSENT, numbered, stable_order
from ml_platform.features.timeline import Asked, Mask, Timeline, held_at, microseconds
from ml_platform.spec import KNOWN_AT, Active, FeatureView, Latest, Window

AS_OF = "as_of"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EFFECTIVE, _KEY = "_effective", "_key"
_WORTH_THREADS = 200_000
_NEVER = 1 << 61  # unix microseconds that no clock shows
Column = tuple[Floats, Mask]


def history_needed(view: FeatureView, grid: timedelta) -> timedelta:
    """How long before a range the events must reach for the range's rows to be exact.

    One grid step more than the longest window, since a row is compared with the step before; closing events may
    come up to a day before what they close.
    """
    return view.lookback + grid + timedelta(days=1)


def events_of(view: FeatureView, frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The view's source rows in order, each with the moment from which it counts (the later of time and known_at).

    Where a row was corrected, ``ENDS`` says until when each counts.
    """
    rows = with_ends(view, frames[view.source].with_columns(**view.derive))
    return rows.filter(counts(view)).with_columns(effective(view.time).alias(_EFFECTIVE))


def feature_rows(
    view: FeatureView, frames: Mapping[str, pl.DataFrame], start: datetime, end: datetime, grid: timedelta
) -> pl.DataFrame:
    """The view's change log for grid steps in [start, end): entity columns, ``as_of``, the features.

    frames: raw tables by name with all rows from ``start - history_needed(view, grid)`` to the end of the range.
    """
    frames = _narrowed(view, frames, start, end, grid)
    events = events_of(view, frames)
    points = _change_points(view, events, frames, start, end, grid)
    if points.is_empty():
        return _assembled(view, points, {name: (np.zeros(0), np.zeros(0, dtype=bool)) for name in view.schema()})
    before = points.with_columns(pl.col(AS_OF) - grid)
    values = _values(view, events, frames, pl.concat([points, before]))
    compared = list(view.schema())
    then = values.tail(points.height).select(pl.col(compared).name.suffix("?"))
    changed = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}?")) for name in compared)
    rows = pl.concat([values.head(points.height), then], how="horizontal").filter(changed)
    return rows.select(*view.entity_names, AS_OF, *view.schema()).sort(*view.entity_names, AS_OF)


def values_at(view: FeatureView, frames: Mapping[str, pl.DataFrame], points: pl.DataFrame) -> pl.DataFrame:
    """The view's features at each point (entity columns, ``as_of``), in the order of the points."""
    return _values(view, events_of(view, frames), frames, points)


def _narrowed(
    view: FeatureView, frames: Mapping[str, pl.DataFrame], start: datetime, end: datetime, grid: timedelta
) -> Mapping[str, pl.DataFrame]:
    """The frames without the source's entities that cannot change in [start, end): most of them, in a single step."""
    rows = frames[view.source]
    has_active = any(isinstance(feature, Active) for feature in view.features)  # other tables' rows move it, too
    if has_active or view.time != KNOWN_AT or not set(view.entity_names) <= set(rows.columns):
        return frames
    seen = rows[KNOWN_AT].to_physical().to_numpy()
    step, low, high = (microseconds(span) for span in (grid, start - _EPOCH, end - _EPOCH))
    shifts = [0, *(microseconds(span) for feature in view.features for _, span, _ in feature.features() if span)]
    moving = np.zeros(rows.height, dtype=bool)
    for shift in shifts:
        moving |= (seen + shift > low - step) & (seen + shift < high)
    names, key = list(view.entity_names), list(view.key)
    moved = rows.filter(pl.Series(moving))
    versions = corrected(key, rows)  # a correction moves the entity of the row that it supersedes, too
    if versions.height:
        moved = pl.concat([moved.select(names), versions.join(moved, on=key, how="semi").select(names)])
    own = rows.join(moved.select(names).unique(), on=names, how="semi")
    if versions.height:
        others = versions.join(own, on=key, how="semi").join(own.select(names).unique(), on=names, how="anti")
        own = pl.concat([own, others])
    return {**frames, view.source: own}


def _change_points(
    view: FeatureView,
    events: pl.DataFrame,
    frames: Mapping[str, pl.DataFrame],
    start: datetime,
    end: datetime,
    grid: timedelta,
) -> pl.DataFrame:
    """(entity, grid step) pairs in [start, end) where a value can differ from the step before."""
    effective = events[_EFFECTIVE].to_numpy()
    moments = [effective]
    spans = {span for feature in view.features if isinstance(feature, Window) for span in feature.over}
    moments += [effective + microseconds(span) for span in spans]
    for feature in view.features:
        if isinstance(feature, Active):
            moments += _active_bounds(feature, events, frames)
    if ENDS in events.columns:
        moments.append(events[ENDS].fill_null(_NEVER).to_numpy())
    step = microseconds(grid)
    low, high = microseconds(start - _EPOCH), microseconds(end - _EPOCH)
    steps = [-(-moment // step) * step for moment in moments]
    rows = [np.flatnonzero((at >= low) & (at < high)) for at in steps]
    at = np.concatenate([at[row] for at, row in zip(steps, rows, strict=True)])
    entities = events.select(view.entity_names)[np.concatenate(rows)]
    return entities.with_columns(pl.Series(AS_OF, at).cast(pl.Datetime("us", "UTC"))).unique(maintain_order=True)


def _values(
    view: FeatureView, events: pl.DataFrame, frames: Mapping[str, pl.DataFrame], points: pl.DataFrame
) -> pl.DataFrame:
    names = list(view.entity_names)
    codes, theirs = numbered(points, events, names)
    if (theirs == ABSENT).any():
        kept = theirs != ABSENT
        events, theirs = events.filter(pl.Series(kept)), theirs[kept]
    spans = [span for feature in view.features for _, span, _ in feature.features() if span is not None]
    moments = events[_EFFECTIVE].rechunk()  # once, instead of each time that numpy looks at them
    asked, turn = Asked.of(codes, points[AS_OF], moments, spans).in_order()
    ends = [ENDS] if ENDS in events.columns else []
    order = _order(view, events) if _order_matters(view) else []
    relevant = events.select(*dict.fromkeys([*_columns(view), *ends, *([_EFFECTIVE, *order] if order else [])]))
    if not order and _ascends(moments.to_numpy()):
        with _workers(len(theirs)) as together:
            by_entity, keys = together(
                lambda made: made(), [lambda: stable_order(theirs), lambda: asked.keys(theirs, moments)]
            )
            keys, *columns = together(lambda one: _gathered(one, by_entity), [keys, *relevant])
        relevant = pl.DataFrame(columns)
    else:
        # One integer is sorted in a third of the time that two columns take.
        sorting = [_KEY, *([_EFFECTIVE, *order] if order else [])]
        relevant = relevant.with_columns(pl.Series(_KEY, asked.keys(theirs, moments))).sort(sorting)
        keys = relevant[_KEY].to_numpy()
    timeline = asked.timeline(keys)
    found: dict[str, Column] = {}
    for feature in view.features:
        if isinstance(feature, Active):
            found |= _active(feature, _active_bounds(feature, relevant, frames), asked, timeline)
        elif isinstance(feature, Latest):
            found |= _latest(feature, relevant[feature.column], _ends(relevant), asked, timeline)
    windows = [feature for feature in view.features if isinstance(feature, Window)]
    found |= _all_windows(windows, relevant, asked, timeline)
    if ends and windows:
        for some, part, places, part_timeline in held_at(asked, timeline, relevant[ENDS], view.lookback):
            for name, column in _all_windows(windows, relevant[places], part, part_timeline).items():
                for whole, own in zip(found[name], column, strict=True):
                    whole[some] = own
    back = np.empty_like(turn)
    back[turn] = np.arange(len(turn))
    return _assembled(view, points.select(*names, AS_OF), found, back)


def _gathered(column: Any, places: Ints) -> Any:
    """A column, or an array, at these places; numbers without gaps by numpy, which takes a third of the time."""
    if isinstance(column, np.ndarray):
        return np.take(column, places, mode="clip")  # all lie within; saying so saves a fifth
    if column.dtype.is_numeric() and not column.has_nulls():
        return pl.Series(column.name, np.take(column.to_numpy(), places, mode="clip"))
    return column.gather(places)


def _ascends(moments: Ints) -> bool:
    return bool((moments[1:] >= moments[:-1]).all())


def _order(view: FeatureView, events: pl.DataFrame) -> list[str]:
    return list(view.key) or [column for column in events.columns if column != _EFFECTIVE]


def _order_matters(view: FeatureView) -> bool:
    """Whether rows of the same moment must stand in a fixed order: that of their key, or of all values without one."""
    ordered = ("first", "last", "change")
    return any(isinstance(f, Latest) or (isinstance(f, Window) and f.aggregate in ordered) for f in view.features)


def _columns(view: FeatureView) -> list[str]:
    columns = []
    for feature in view.features:
        columns += [feature.opened_at, KNOWN_AT, *feature.key] if isinstance(feature, Active) else [feature.column]
    return columns


def _assembled(
    view: FeatureView, points: pl.DataFrame, found: dict[str, Column], places: Ints | None = None
) -> pl.DataFrame:
    """Numbers and masks as one frame; one expression a column, since each separate step costs more than the sums.

    places: where the values of each point stand; None: in the order of the points.
    """
    raw = {name: values for name, (values, _) in found.items()}
    masks = {f"{name}?": valid for name, (_, valid) in found.items() if not valid.all()}
    types = {name: pl.Int64 if kind == "int64" else pl.Float64 for name, kind in view.schema().items()}
    columns = [
        pl.when(pl.col(f"{name}?")).then(pl.col(name).cast(kind)).otherwise(None).alias(name)
        if f"{name}?" in masks
        else pl.col(name).cast(kind)
        for name, kind in types.items()
    ]
    values = pl.DataFrame({**raw, **masks}).select(columns)
    return points.hstack(values if places is None else values[places])


def _active(feature: Active, bounds: tuple[Ints, Ints], asked: Asked, timeline: Timeline) -> dict[str, Column]:
    (name, _, _), *_ = feature.features()
    opened, ended = (asked.count_up_to(timeline, moments) for moments in bounds)
    return {name: ((opened - ended).astype(np.float64), np.full(len(opened), True))}


def _ends(relevant: pl.DataFrame) -> Ints | None:
    return relevant[ENDS].fill_null(_NEVER).to_numpy() if ENDS in relevant.columns else None


def _latest(
    feature: Latest, column: pl.Series, ends: Ints | None, asked: Asked, timeline: Timeline
) -> dict[str, Column]:
    (name, _, _), *_ = feature.features()
    values, present = _numbers(column)
    if len(values) == 0:
        return {name: (np.zeros(len(asked.codes)), np.full(len(asked.codes), False))}
    upper, first = asked.upper(timeline), asked.first(timeline)
    if ends is not None:
        upper = asked.skipping_ended(upper, first, ends)
    newest = np.maximum(upper - 1, 0)
    return {name: (values[newest].astype(np.float64), present[newest] & (upper > first))}


def _all_windows(windows: list[Window], events: pl.DataFrame, asked: Asked, timeline: Timeline) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for column in dict.fromkeys(feature.column for feature in windows):
        found |= _windows([f for f in windows if f.column == column], events[column], asked, timeline)
    return found


def _windows(features: list[Window], column: pl.Series, asked: Asked, timeline: Timeline) -> dict[str, Column]:
    """All windows over one column: its null values are left out once, each window's edge is searched once."""
    values, present = _numbers(column)
    own, known = timeline.where(present), Values(values if present.all() else values[present])
    upper, first = asked.upper(own), asked.first(own)

    def lower(span: timedelta) -> Ints:
        # An event exactly one window old has left it, so the lower edge counts entries up to t - w.
        return np.maximum(asked.upper(own, before=span), first)

    each = [(name, feature.aggregate, span) for feature in features for name, span, _ in feature.features()]

    def of_span(span: timedelta) -> dict[str, Column]:
        edge = lower(span)
        return {name: aggregate(kind, known, edge, upper) for name, kind, own in each if own == span}

    with _workers(len(upper)) as together:
        made = together(of_span, dict.fromkeys(span for _, _, span in each))
        found = {name: column for columns in made for name, column in columns.items()}
    return {name: found[name] for name, _, _ in each}


@contextmanager
def _workers(questions: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """``map``, on all cores where the questions are worth it: numpy lets go of the interpreter's lock."""
    if questions < _WORTH_THREADS:
        yield map
        return
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield threads.map


def _numbers(column: pl.Series) -> tuple[Numbers, Mask]:
    """The column's values (0 where null) and where it has one; of text, which can only be counted, its codes."""
    present = column.is_not_null().to_numpy()
    if column.dtype.is_temporal():
        column = column.to_physical()
    elif not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        column = column.rank("dense")
    kind = pl.Float64 if column.dtype.is_float() else pl.Int64
    return column.cast(kind).fill_null(0).to_numpy(), present


def _active_bounds(feature: Active, events: pl.DataFrame, frames: Mapping[str, pl.DataFrame]) -> tuple[Ints, Ints]:
    """When each fact opened and when it stopped being active (closed, expired, corrected), unix microseconds."""
    key = list(feature.key)
    closing = pl.concat(frames[table].select(*key, pl.col(KNOWN_AT).dt.epoch("us")) for table in feature.closed_by)
    first = closing.group_by(key).agg(pl.col(KNOWN_AT).min().alias("_closed"))
    ends = pl.col(ENDS) if ENDS in events.columns else pl.lit(None, pl.Int64).alias(ENDS)
    bounds = events.select(*key, effective(feature.opened_at).alias("_opened"), ends)
    bounds = bounds.join(first, on=key, how="left", maintain_order="left")
    expiry = pl.col("_opened") + microseconds(feature.expires_after)
    closed = pl.max_horizontal("_opened", pl.min_horizontal("_closed", ENDS).fill_null(expiry))
    bounds = bounds.select("_opened", pl.min_horizontal(closed, expiry).alias("_ended"))
    return bounds["_opened"].to_numpy(), bounds["_ended"].to_numpy()
