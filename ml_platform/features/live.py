"""Live windows: feature views followed event by event, and read as of any moment.

``apply`` brings rows of a raw table into the tiles; ``LiveViews.values`` puts the values together. Rows may arrive in
any order, late and more than once: what is read at t depends only on the set of rows that count at t.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
import polars as pl

from ml_platform.features.live_rows import Counted, Needs, counted, key_rows, ordered
from ml_platform.features.tiles import (
    Event,
    Part,
    column_of,
    encode,
    events_of,
    finished,
    joined,
    merged,
    parts_of,
    summarize,
)
from ml_platform.spec import KNOWN_AT, Active, DeclarationError, FeatureView, MissingHistory, Window
from ml_platform.stores.feast_bytes import KeyValue, Value, entity_key_encoder
from ml_platform.stores.tiles import Change, Found, TileStore, Wanted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_HOUR = timedelta(hours=1) // _TICK
_TILES_A_WINDOW = 28  # the longest window reads about as many parts; a finer cut reads more, a coarser one more events
# Values may be asked as of a moment up to so long before the newest event.
KEPT_BEHIND = timedelta(days=2)

# Where the store says since when it is whole: a tile like any other, of no view, which is never dropped.
_REACH = Wanted("", b"reach", 0, 0, (0,))
_FOR_GOOD = 1 << 60


def micros(moment: datetime) -> int:
    """Unix microseconds."""
    return (moment - _EPOCH) // _TICK


@dataclass(frozen=True)
class Log:
    """One kind of event of a view's entities: which columns it keeps, and how it is cut (microseconds)."""

    name: str
    span: int
    tile: int
    columns: tuple[str, ...]
    kinds: tuple[frozenset[str], ...]

    @classmethod
    def of(cls, name: str, span: timedelta, columns: Mapping[str, frozenset[str]]) -> "Log":
        """Tiles of whole hours."""
        length = span // _TICK
        tile = max(-(-length // _TILES_A_WINDOW // _HOUR), 1) * _HOUR
        return cls(name, length, tile, tuple(columns), tuple(columns.values()))

    def until(self, tile: int) -> int:
        """When nobody asks for the tile any more."""
        return (tile + 1) * self.tile + self.span + KEPT_BEHIND // _TICK


class LiveView:
    """A view compiled for following it: a log for its windows, and one for each ``Active``."""

    def __init__(self, view: FeatureView) -> None:
        """``view``: one whose ``is_live`` is true.

        Raises:
            DeclarationError: it has no key, so two events of the same moment could not be told apart.
        """
        if not view.key:
            raise DeclarationError(f"view {view.name} does not say by which key its source's rows are told apart")
        self.view = view
        self.encode_entity = lru_cache(1 << 14)(entity_key_encoder(view.entity_names))
        windows = [feature for feature in view.features if isinstance(feature, Window)]
        columns: dict[str, frozenset[str]] = {}
        for window in windows:
            columns[window.column] = columns.get(window.column, frozenset()) | {window.aggregate}
        spans = [span for window in windows for span in window.over]
        self.log = Log.of(view.name, max(spans), columns) if windows else None
        place = {column: n for n, column in enumerate(columns)}
        self.windows = [
            (name, window, span // _TICK, place[window.column])
            for window in windows
            for name, span, _ in window.features()
        ]
        self.spans = sorted({span for _, _, span, _ in self.windows})
        self.actives = [
            (active, Log.of(f"{view.name}/{active.name}", active.expires_after, {"closed": frozenset()}))
            for active in view.features
            if isinstance(active, Active)
        ]

        self.needs = Needs(view, tuple(columns), tuple(active for active, _ in self.actives))

    def wanted(self, entity: bytes, at: int) -> list[Wanted]:
        """What to read for the values at a moment: the windows' tiles, then those of each ``Active``."""
        wanted = []
        if self.log is not None:
            newest = at // self.log.tile
            lowest = [(at - span + 1) // self.log.tile for span in self.spans]
            wanted.append(Wanted(self.log.name, entity, min(lowest), newest, tuple({newest, *lowest})))
        for _, log in self.actives:
            first, last = (at - log.span + 1) // log.tile, at // log.tile
            wanted.append(Wanted(log.name, entity, first, last, tuple(range(first, last + 1))))
        return wanted

    def values(self, found: Sequence[Found], at: int) -> dict[str, Value]:
        """The view's features at the moment, from what ``wanted`` brought."""
        values: dict[str, Value] = {}
        opened = list(found)
        if self.log is not None:
            values |= self._window_values(self.log, opened.pop(0), at)
        for (active, log), tiles in zip(self.actives, opened, strict=True):
            ((name, _, _),) = active.features()
            values[name] = sum(
                begins <= at < begins + log.span and (closed is None or closed > at)  # type: ignore[operator]  # an int
                for encoded in tiles.events.values()
                for begins, _, (closed,) in events_of(encoded)
            )
        return values

    def _window_values(self, log: Log, found: Found, at: int) -> dict[str, Value]:
        newest = at // log.tile
        tail = [event for event in _events(found, newest) if event[0] <= at]
        tail_parts = [summarize(column_of(tail, n), kinds) for n, kinds in enumerate(log.kinds)]
        whole = [(tile, parts_of(encoded)) for tile, encoded in sorted(found.parts.items())]
        inside: dict[int, list[Part]] = {}
        for span in self.spans:
            after = at - span
            lowest = (after + 1) // log.tile
            if lowest == newest:
                rows = [event for event in tail if event[0] > after]
                inside[span] = [summarize(column_of(rows, n), kinds) for n, kinds in enumerate(log.kinds)]
                continue
            head = [event for event in _events(found, lowest) if event[0] > after]
            between = [parts for tile, parts in whole if lowest < tile < newest]
            inside[span] = [
                joined([summarize(column_of(head, n), kinds), *[parts[n] for parts in between], tail_parts[n]], kinds)
                for n, kinds in enumerate(log.kinds)
            ]
        return {name: finished(window, inside[span][place]) for name, window, span, place in self.windows}


def _events(found: Found, tile: int) -> tuple[Event, ...]:
    return events_of(found.events[tile]) if tile in found.events else ()


class LiveViews:
    """The live ones among some views, read together from one store."""

    def __init__(self, views: Iterable[FeatureView], tiles: TileStore) -> None:
        """Views that store their newest value are left out."""
        self.tiles = tiles
        self.views = {view.name: LiveView(view) for view in views if view.is_live}

    def values(self, asked: Sequence[tuple[str, tuple[KeyValue | None, ...]]], at: datetime) -> list[dict[str, Value]]:
        """For each (view, key in the order of its entities) the features as of ``at``; all None for a key not whole.

        One read of the store, whatever is asked.

        Raises:
            MissingHistory: events that the values at this moment depend on may have been dropped.
        """
        moment = micros(at)
        wanted: list[Wanted] = []
        places: list[tuple[int, int] | None] = []
        for name, key in asked:
            if None in key:
                places.append(None)
                continue
            needs = self.views[name].wanted(self.views[name].encode_entity(key), moment)
            places.append((len(wanted), len(wanted) + len(needs)))
            wanted += needs
        found = self.tiles.read([*wanted, _REACH])
        for encoded in found[-1].events.values():
            reach = int.from_bytes(encoded, signed=True)
            if moment < reach:
                raise MissingHistory(
                    f"live windows are kept as of {_EPOCH + reach * _TICK} on, and {at.isoformat()} lies before it; "
                    f"the raw tables hold the history: ask features.windows.values_at"
                )
        return [
            dict.fromkeys(self.views[name].view.schema())
            if place is None
            else self.views[name].values(found[place[0] : place[1]], moment)
            for (name, _), place in zip(asked, places, strict=True)
        ]

    def keep_from(self, moment: datetime) -> None:
        """Drop what no value at this moment or later depends on; values of before it are refused from now on."""

        def later(held: bytes | None) -> tuple[bytes, bytes] | None:
            before = int.from_bytes(held, signed=True) if held else None
            new = micros(moment)
            return None if before is not None and new <= before else (b"", new.to_bytes(8, signed=True))

        self.tiles.update([Change(_REACH.log, _REACH.entity, _REACH.first, _FOR_GOOD, later)])
        self.tiles.prune(micros(moment))

    @property
    def logs(self) -> list[str]:
        """The names of all logs that these views keep tiles in."""
        own = [live.log.name for live in self.views.values() if live.log is not None]
        actives = [log.name for live in self.views.values() for _, log in live.actives]
        return [*own, *actives, *(f"{name}/facts" for name in actives)]

    def whole_from(self) -> int | None:
        """Since when values may be asked for (unix microseconds); None: nothing was ever dropped."""
        (found,) = self.tiles.read([_REACH])
        return next((int.from_bytes(encoded, signed=True) for encoded in found.events.values()), None)

    def set_whole_from(self, moment: int) -> None:
        """Refuse values of before the moment, whatever was refused until now; for who makes the tiles anew."""
        stands = (b"", moment.to_bytes(8, signed=True))
        self.tiles.update([Change(_REACH.log, _REACH.entity, _REACH.first, _FOR_GOOD, lambda _: stands)])

    def apply(self, table: str, rows: pl.DataFrame, *, since: datetime | None = None) -> int:
        """Bring rows of a raw table into every view that follows it; returns how many tiles changed.

        since: leave out what no window reaches that is asked at this moment or later.
        """
        return self.write(self.evaluated(table, rows), since=since) if rows.height else 0

    def evaluated(self, table: str, rows: pl.DataFrame) -> "Evaluated":
        """What the views need of the rows, to be written at once or in parts."""
        own = [live for live in self.views.values() if table == live.view.source]
        closed = [
            (active, log) for live in self.views.values() for active, log in live.actives if table in active.closed_by
        ]
        return Evaluated(
            opening=list(zip(own, counted([live.needs for live in own], rows), strict=True)),
            closing=[(log, _closed(active, rows)) for active, log in closed],
        )

    def write(self, found: "Evaluated", *, since: datetime | None = None) -> int:
        """The second half of ``apply``."""
        tiles: dict[tuple[str, bytes, int], _Draft] = {}
        later: list[_Known] = []
        for live, some in found.opening:
            _window_events(live, some, since, tiles)
            for (_, log), opened in zip(live.actives, some.opened, strict=True):
                later += _openings(live, log, some, opened)
        for log, closed in found.closing:
            later += [_closing(log, ordered(fact), moment) for fact, moment in closed if None not in fact]
        facts = [fact.change() for fact in later]
        written = self.tiles.update(facts) if facts else 0
        for fact in later:
            fact.settle(tiles)
        return written + (self.tiles.update([draft.change() for draft in tiles.values()]) if tiles else 0)


@dataclass(frozen=True)
class Evaluated:
    """Rows of a table as the views need them: of each view that has the table as its source what counts, and for each
    ``Active`` that the table closes the facts of all rows and the moments (unix microseconds) they were closed."""

    opening: list[tuple[LiveView, Counted]]
    closing: list[tuple[Log, list[tuple[tuple[Any, ...], int]]]]

    def part(self, first: int, end: int) -> "Evaluated":
        """That of the rows at the places [first, end)."""
        return Evaluated(
            opening=[(live, found.part(first, end)) for live, found in self.opening],
            closing=[(log, facts[first:end]) for log, facts in self.closing],
        )


class _Draft:
    """New events of one tile."""

    def __init__(self, log: Log, entity: bytes, tile: int) -> None:
        self.log, self.entity, self.tile = log, entity, tile
        self.events: list[Event] = []
        self.closes = False

    def change(self) -> Change:
        return Change(self.log.name, self.entity, self.tile, self.log.until(self.tile), self._make)

    def _make(self, held: bytes | None) -> tuple[bytes, bytes] | None:
        events = _with_closed(held, self.events) if self.closes else merged(held, self.events)
        if events is None:
            return None
        encoded, parts = encode(events, self.log.kinds)
        return parts, encoded


def _with_closed(held: bytes | None, new: Sequence[Event]) -> list[Event] | None:
    """As ``merged``; of the same fact the earliest closing holds."""
    events = {event[:2]: event for event in (events_of(held) if held else ())}
    before = dict(events)
    for at, key, (closed,) in new:
        _, _, (known,) = events.get((at, key), (at, key, (None,)))
        moments = [moment for moment in (closed, known) if moment is not None]
        events[at, key] = (at, key, (min(moments, default=None),))
    return [events[place] for place in sorted(events)] if events != before else None


def _put(tiles: dict[tuple[str, bytes, int], _Draft], log: Log, entity: bytes, event: Event) -> _Draft:
    tile = event[0] // log.tile
    draft = tiles.setdefault((log.name, entity, tile), _Draft(log, entity, tile))
    draft.events.append(event)
    return draft


def _window_events(
    live: LiveView, found: Counted, since: datetime | None, tiles: dict[tuple[str, bytes, int], _Draft]
) -> None:
    log = live.log
    if log is None:
        return
    oldest = micros(since) - log.span if since is not None else None
    for entity, moment, key, row in zip(found.entities, found.moments, found.keys, found.values, strict=True):
        if oldest is None or moment > oldest:
            _put(tiles, log, live.encode_entity(entity), (moment, ordered(key), row))


# Facts that are open: the event that opens one names its entity, the event that closes it names the fact alone


class _Fact(msgspec.Struct, array_like=True):
    """What is known of a fact: (moment, key, entity) of each event that opened it, and when it was first closed."""

    opened: list[tuple[int, str, bytes]] = []
    closed: int | None = None


_fact_from = msgspec.msgpack.Decoder(_Fact)
_to_bytes = msgspec.msgpack.Encoder().encode


class _Known:
    """A change of a fact, and then of the tiles that show it; repeating both changes nothing."""

    def __init__(self, log: Log, fact: str, moment: int, learned: Callable[[_Fact], _Fact]) -> None:
        self.log, self.fact, self.moment, self.learned = log, fact, moment, learned
        self.found = _Fact()

    def change(self) -> Change:
        until = self.moment + self.log.span + KEPT_BEHIND // _TICK
        return Change(f"{self.log.name}/facts", self.fact.encode(), 0, until, self._make)

    def _make(self, held: bytes | None) -> tuple[bytes, bytes] | None:
        before = _fact_from.decode(held) if held else _Fact()
        self.found = self.learned(before)
        return None if held and self.found == before else (b"", _to_bytes(self.found))

    def settle(self, tiles: dict[tuple[str, bytes, int], _Draft]) -> None:
        for moment, key, entity in self.found.opened:
            _put(tiles, self.log, entity, (moment, key, (self.found.closed,))).closes = True


def _opening(log: Log, fact: str, event: tuple[int, str, bytes]) -> _Known:
    def learned(before: _Fact) -> _Fact:
        return _Fact(before.opened if event in before.opened else [*before.opened, event], before.closed)

    return _Known(log, fact, event[0], learned)


def _closing(log: Log, fact: str, moment: int) -> _Known:
    def learned(before: _Fact) -> _Fact:
        return _Fact(before.opened, moment if before.closed is None else min(moment, before.closed))

    return _Known(log, fact, moment, learned)


def _openings(live: LiveView, log: Log, found: Counted, opened: Iterable[tuple[tuple[Any, ...], int]]) -> list[_Known]:
    return [
        _opening(log, ordered(fact), (moment, ordered(key), live.encode_entity(entity)))
        for (fact, moment), key, entity in zip(opened, found.keys, found.entities, strict=True)
    ]


def _closed(active: Active, rows: pl.DataFrame) -> list[tuple[tuple[Any, ...], int]]:
    return list(zip(key_rows(rows, active.key), rows[KNOWN_AT].dt.epoch("us").to_list(), strict=True))
