"""What a tile holds, and how a window's value is put together from tiles.

A *log* is one kind of event of one entity, cut into tiles of equal length. A tile keeps its events and one ``Part`` a
column, which says all that a window over the whole tile needs. A window (t - w, t] takes the parts of the tiles inside
it and looks into the events of the two at its edges, so that its value is exact at any t.

Everything is a pure function of the *set* of events: neither their order of arrival nor a second delivery matters.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import Any

import msgspec

from ml_platform.spec import Window
from ml_platform.spec.features import FIXED_POINT, ZERO_WHEN_EMPTY

Scalar = float | int | str | bool | None
# (moment from which it counts in unix microseconds, name within the log, values by column of the log). One that was
# superseded has one value more: when the correction became known, from which on it does not count.
Event = tuple[int, str, tuple[Scalar, ...]]


class Part(msgspec.Struct, array_like=True, frozen=True):
    """One column's non-null values in some stretch of a log, in order.

    total, squares: exact sums of the values (floats in fixed point) and of their squares; the latter as text, since
        they outgrow 64 bits. is_float: whether ``total`` is in fixed point. distinct: the different values, sorted.
    """

    count: int = 0
    total: int = 0
    squares: str = "0"
    is_float: bool = False
    lowest: float | int | None = None
    highest: float | int | None = None
    first: float | int | None = None
    last: float | int | None = None
    distinct: tuple[Scalar, ...] = ()


NOTHING = Part()
_SUMS = frozenset(["count", "sum", "mean", "share"])  # what most windows ask for needs no more than two sums
_Events = tuple[Event, ...]
_Parts = tuple[Part | int, ...]
_events_from = msgspec.msgpack.Decoder(_Events)
_parts_from = msgspec.msgpack.Decoder(_Parts)
_encoder = msgspec.msgpack.Encoder()


@lru_cache(maxsize=1 << 12)
def events_of(encoded: bytes) -> tuple[Event, ...]:
    """The events of a tile, sorted by moment and key; decoded once, since hot tiles are read again and again."""
    return _events_from.decode(encoded)


@lru_cache(maxsize=1 << 16)
def whole_of(encoded: bytes) -> tuple[tuple[Part, ...], int]:
    """The parts of a tile, one a column of the log, and since when they hold: from the last end of an event in it on.

    0 if no event was superseded. Before that moment the tile's events say what held.
    """
    *parts, last = _parts_from.decode(encoded) or (0,)
    since = last if isinstance(last, int) else 0
    return tuple(part for part in (*parts, last) if isinstance(part, Part)), since


def encode(events: Sequence[Event], kinds: Sequence[frozenset[str]]) -> tuple[bytes, bytes]:
    """A tile's events and parts as bytes; ``kinds``: the aggregates asked of each column."""
    width = len(kinds)
    lasting = [event for event in events if len(event[2]) == width]
    parts: list[Part | int] = [summarize(column_of(lasting, n), k) for n, k in enumerate(kinds)]
    if len(lasting) < len(events):
        parts.append(max(event[2][width] for event in events if len(event[2]) > width))  # type: ignore[type-var, arg-type]  # ints
    return _encoder.encode(events), _encoder.encode(parts)


def holding(events: Iterable[Event], at: int, width: int) -> list[Event]:
    """The events that were not superseded by the moment; ``width``: how many columns the log has."""
    return [event for event in events if len(event[2]) == width or event[2][width] > at]  # type: ignore[operator]  # ints


def merged(encoded: bytes | None, new: Iterable[Event], width: int) -> list[Event] | None:
    """The tile's events with the new ones; ``None`` if it holds them all already. Of two with the same moment and name,
    the one that came first stays, with the earliest end: it is the same row, delivered again."""
    events, new = events_of(encoded) if encoded else (), sorted(new, key=_place)
    if new and (not events or _place(events[-1]) < _place(new[0])) and _differ(new, width):
        return [*events, *new]  # mostly they come in the order of time
    held = {_place(event): event for event in events}
    changed = False
    for event in new:
        place = event[:2]
        before = held.get(place)
        if before is None:
            held[place], changed = event, True
        elif len(event[2]) > width and (len(before[2]) == width or before[2][width] > event[2][width]):  # type: ignore[operator]  # ints
            held[place], changed = (*place, (*before[2][:width], event[2][width])), True
    return [held[place] for place in sorted(held)] if changed else None


_place = itemgetter(0, 1)


def _differ(events: Sequence[Event], width: int) -> bool:
    """Whether sorted events are of different rows, none of them superseded."""
    return all(len(event[2]) == width for event in events) and all(_place(a) != _place(b) for a, b in pairwise(events))


def column_of(events: Iterable[Event], column: int) -> list[Any]:
    """The column's values that are not null, in the order of the events."""
    return [values[column] for _, _, values in events if values[column] is not None]


def summarize(values: Sequence[Any], kinds: frozenset[str]) -> Part:
    """The part of these values, as far as the aggregates in ``kinds`` need it."""
    if not values:
        return NOTHING
    if kinds <= {"count"}:
        return Part(count=len(values))
    is_float = isinstance(values[0], float)
    counts = isinstance(values[0], str)
    exact = [] if counts else [round(v * FIXED_POINT) for v in values] if is_float else [int(v) for v in values]
    if kinds <= _SUMS:
        return Part(len(values), sum(exact), "0", is_float)
    return Part(
        count=len(values),
        total=sum(exact),
        squares=str(sum(v * v for v in exact)) if "std" in kinds else "0",
        is_float=is_float,
        lowest=min(values) if "min" in kinds else None,
        highest=max(values) if "max" in kinds else None,
        first=values[0] if kinds & {"first", "change"} else None,
        last=values[-1] if kinds & {"last", "change"} else None,
        distinct=tuple(sorted(set(values))) if "distinct" in kinds else (),
    )


def joined(parts: Iterable[Part], kinds: frozenset[str]) -> Part:
    """The part of stretches that follow each other, as far as the aggregates in ``kinds`` need it."""
    filled = [part for part in parts if part.count]
    if len(filled) <= 1:
        return filled[0] if filled else NOTHING
    if kinds <= _SUMS:
        count = total = 0
        for part in filled:
            count += part.count
            total += part.total
        return Part(count, total, "0", filled[0].is_float)
    has_range, has_set = filled[0].lowest is not None, bool(filled[0].distinct)
    has_peak = filled[0].highest is not None
    return Part(
        count=sum([part.count for part in filled]),
        total=sum([part.total for part in filled]),
        squares=str(sum(int(part.squares) for part in filled)) if any(part.squares != "0" for part in filled) else "0",
        is_float=filled[0].is_float,
        lowest=min(part.lowest for part in filled if part.lowest is not None) if has_range else None,
        highest=max(part.highest for part in filled if part.highest is not None) if has_peak else None,
        first=filled[0].first,
        last=filled[-1].last,
        distinct=tuple(set().union(*(part.distinct for part in filled))) if has_set else (),
    )


def finished(window: Window, part: Part) -> float | int | None:
    """The window's value; bit for bit that of ``aggregates.aggregate``."""
    kind = window.aggregate
    if kind == "count":
        return part.count
    if kind == "distinct":
        return len(part.distinct)
    if not part.count:
        return 0.0 if kind in ZERO_WHEN_EMPTY else None
    match kind:
        case "sum":
            return _sum(part)
        case "mean" | "share":
            return _sum(part) / part.count
        case "std":
            return deviation(part.count, part.total, int(part.squares), part.is_float)
        case "min":
            return _number(part.lowest)
        case "max":
            return _number(part.highest)
        case "first":
            return _number(part.first)
        case "last":
            return _number(part.last)
        case "change":
            return _number(part.last) - _number(part.first)
    raise AssertionError(kind)


def deviation(count: int, total: int, squares: int, is_float: bool) -> float | None:
    """The sample standard deviation from exact sums; none of fewer than two values.

    The quotient of two integers and the root are rounded once each, so every way to the sums gives the same bits.
    """
    if count < 2:
        return None
    spread = math.sqrt((count * squares - total * total) / (count * (count - 1)))
    return spread / FIXED_POINT if is_float else spread


def _sum(part: Part) -> float:
    return float(part.total) / FIXED_POINT if part.is_float else float(part.total)


def _number(value: float | int | None) -> float:
    assert value is not None
    return float(value)
