"""Writing live windows: events into the tiles of all views that follow their table.

First a fact's record is changed, then the tiles that show it, from what the record says. Both are done again when a
writer was killed in between, and doing them again, or from an older record, changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import msgspec
import polars as pl

from ml_platform.features.live_facts import Facts, Remembering, versions
from ml_platform.features.live_rows import Counted, counted, key_rows, ordered
from ml_platform.features.live_view import KEPT_BEHIND, TICK, LiveView, Log
from ml_platform.features.live_whole import Alive
from ml_platform.features.tiles import Event, encode, events_of, merged
from ml_platform.spec import KNOWN_AT, Active
from ml_platform.stores.tiles import Change, TileStore

_KEPT_BEHIND = KEPT_BEHIND // TICK
_Tiles = dict[tuple[str, bytes, int], "_Draft"]


@dataclass(frozen=True)
class Evaluated:
    """Rows of a table as the views need them: of each view that has the table as its source what counts, and for each
    ``Active`` that the table closes the facts of all rows and the moments (unix microseconds) they were closed.

    facts: the rows as they are remembered; None if no view has the table as its source.
    """

    opening: list[tuple[LiveView, Counted]]
    closing: list[tuple[Log, list[tuple[tuple[Any, ...], int]]]]
    facts: Facts | None

    def part(self, first: int, end: int) -> "Evaluated":
        """That of the rows at the places [first, end)."""
        return Evaluated(
            opening=[(live, found.part(first, end)) for live, found in self.opening],
            closing=[(log, facts[first:end]) for log, facts in self.closing],
            facts=None if self.facts is None else self.facts.part(first, end),
        )


def evaluated(views: Iterable[LiveView], table: str, rows: pl.DataFrame) -> Evaluated:
    """What the views need of the table's rows."""
    own = [live for live in views if table == live.view.source]
    closed = [(active, log) for live in views for active, log in live.actives if table in active.closed_by]
    opening = list(zip(own, counted([live.needs for live in own], rows), strict=True))
    reach = max((log.tile + log.span for live in own for log in live.logs), default=0) + _KEPT_BEHIND
    made = [found for _, found in opening]
    return Evaluated(
        opening=opening,
        closing=[(log, _closed(active, rows)) for active, log in closed],
        facts=Facts.of(table, own[0].view.key, rows, made, reach) if own else None,
    )


def write(tiles: TileStore, found: Evaluated, since: int | None, alive: Alive | None = None) -> int:
    """Bring the rows into the tiles; returns how many tiles and records changed.

    since: unix microseconds; leave out what no window reaches that is asked then or later. alive: goes with the first
    of the changes, and is not counted.
    """
    with tiles.together():
        return _write(tiles, found, since, alive) - (alive.wrote if alive else 0)


def _write(tiles: TileStore, found: Evaluated, since: int | None, alive: Alive | None) -> int:
    written, said = 0, [] if alive is None else [alive.change()]
    opening = [_Opening(live, some) for live, some in found.opening]
    if found.facts is not None:
        facts = found.facts.remembering()
        written += tiles.update([*said, *(fact.change() for fact in facts.values())])
        said = []
        several = {key: fact for key, fact in facts.items() if len(fact.versions) > 1}
        if several:
            opening = _with_versions(opening, found.facts, several)
    drafts: _Tiles = {}
    later: list[_Known] = []
    for one in opening:
        _window_events(one, since, drafts)
        for (_, log), opened in zip(one.live.actives, one.rows.opened, strict=True):
            later += _openings(one, log, opened, drafts)
    for log, closed in found.closing:
        later += [_closing(log, ordered(fact), moment) for fact, moment in closed if None not in fact]
    written += tiles.update([*said, *(fact.change() for fact in later)]) if said or later else 0
    for fact in later:
        fact.settle(drafts)
    return written + (tiles.update([draft.change() for draft in drafts.values()]) if drafts else 0)


class _Opening:
    """One view's events: rows, their names among the events of an entity and, where a correction is known, ends."""

    def __init__(self, live: LiveView, rows: Counted, without: Mapping[str, Any] | None = None) -> None:
        """``without``: facts whose rows are left out."""
        self.live, self.rows = live, rows
        self.names = [ordered(key) for key in rows.keys]
        self.ends: list[int | None] = [None] * len(self.names)
        if without and not without.keys().isdisjoint(self.names):
            kept = [n for n, name in enumerate(self.names) if name not in without]
            self.rows, self.names, self.ends = rows.chosen(kept), [self.names[n] for n in kept], [None] * len(kept)

    @classmethod
    def of_versions(
        cls, live: LiveView, rows: Counted, facts: Sequence[Remembering], known: Sequence[int]
    ) -> "_Opening":
        made = cls(live, rows)
        for version in versions(facts, known, rows):
            made.names[version.place], made.ends[version.place] = version.name, version.ends
        return made


def _with_versions(opening: Iterable[_Opening], facts: Facts, several: Mapping[str, Remembering]) -> list[_Opening]:
    """The events without those of facts of several versions, and then these: of each fact all that is remembered."""
    corrected = list(several.values())
    rows = facts.frame(corrected)
    known = rows[KNOWN_AT].dt.epoch("us").to_list()
    own = [one.live for one in opening]
    made = zip(own, counted([live.needs for live in own], rows), strict=True)
    return [
        *(_Opening(one.live, one.rows, several) for one in opening),
        *(_Opening.of_versions(live, found, corrected, known) for live, found in made),
    ]


class _Draft:
    """New events of one tile."""

    def __init__(self, log: Log, entity: bytes, tile: int) -> None:
        self.log, self.entity, self.tile = log, entity, tile
        self.events: list[Event] = []
        self.closes = False

    def change(self) -> Change:
        return Change(self.log.name, self.entity, self.tile, self.log.until(self.tile), self._make)

    def _make(self, held: bytes | None) -> tuple[bytes, bytes] | None:
        events = _with_closed(held, self.events) if self.closes else merged(held, self.events, len(self.log.columns))
        if events is None:
            return None
        encoded, parts = encode(events, self.log.kinds)
        return parts, encoded


def _with_closed(held: bytes | None, new: Sequence[Event]) -> list[Event] | None:
    """As ``merged``; of the same fact the earliest closing holds, and the earliest end."""
    events = {event[:2]: event for event in (events_of(held) if held else ())}
    before = dict(events)
    for at, key, moments in new:
        _, _, known = events.get((at, key), (at, key, ()))
        events[at, key] = (at, key, tuple(_earliest(*pair) for pair in zip_longest(moments, known)))
    return [events[place] for place in sorted(events)] if events != before else None


def _earliest(*moments: Any) -> Any:
    return min((moment for moment in moments if moment is not None), default=None)


def _put(tiles: _Tiles, log: Log, entity: bytes, event: Event) -> _Draft:
    tile = event[0] // log.tile
    draft = tiles.setdefault((log.name, entity, tile), _Draft(log, entity, tile))
    draft.events.append(event)
    return draft


def _window_events(one: _Opening, since: int | None, tiles: _Tiles) -> None:
    log, rows = one.live.log, one.rows
    if log is None:
        return
    oldest = since - log.span if since is not None else None
    for entity, moment, name, values, ends in zip(
        rows.entities, rows.moments, one.names, rows.values, one.ends, strict=True
    ):
        if oldest is None or moment > oldest:
            kept = values if ends is None else (*values, ends)
            _put(tiles, log, one.live.encode_entity(entity), (moment, name, kept))


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
        until = self.moment + self.log.span + _KEPT_BEHIND
        return Change(f"{self.log.name}/facts", self.fact.encode(), 0, until, self._make)

    def _make(self, held: bytes | None) -> tuple[bytes, bytes] | None:
        before = _fact_from.decode(held) if held else _Fact()
        self.found = self.learned(before)
        return None if held and self.found == before else (b"", _to_bytes(self.found))

    def settle(self, tiles: _Tiles) -> None:
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


def _openings(
    one: _Opening, log: Log, opened: Iterable[tuple[tuple[Any, ...], int]], tiles: _Tiles
) -> Iterator[_Known]:
    for (fact, moment), name, entity, ends in zip(opened, one.names, one.rows.entities, one.ends, strict=True):
        encoded = one.live.encode_entity(entity)
        if ends is not None:
            _put(tiles, log, encoded, (moment, name, (None, ends))).closes = True
        yield _opening(log, ordered(fact), (moment, name, encoded))


def _closed(active: Active, rows: pl.DataFrame) -> list[tuple[tuple[Any, ...], int]]:
    return list(zip(key_rows(rows, active.key), rows[KNOWN_AT].dt.epoch("us").to_list(), strict=True))
