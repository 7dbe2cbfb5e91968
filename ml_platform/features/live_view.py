"""A feature view compiled for following it: how its events are cut into tiles, and values put together from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from ml_platform.features.live_rows import Needs
from ml_platform.features.tiles import (
    Event,
    Part,
    column_of,
    events_of,
    finished,
    holding,
    joined,
    summarize,
    whole_of,
)
from ml_platform.spec import Active, DeclarationError, FeatureView, Window
from ml_platform.stores.feast_bytes import Value, entity_key_encoder
from ml_platform.stores.tiles import Found, Wanted

Read = Callable[[Sequence[Wanted]], list[Found]]
_Whole = tuple[int, tuple[Part, ...], int]  # a tile, its parts, the last end of an event in it
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
_HOUR = timedelta(hours=1) // TICK
_TILES_A_WINDOW = 28  # the longest window reads about as many parts; a finer cut reads more, a coarser one more events
# Values may be asked as of a moment up to so long before the newest event.
KEPT_BEHIND = timedelta(days=2)


def micros(moment: datetime) -> int:
    """Unix microseconds."""
    return (moment - EPOCH) // TICK


@lru_cache
def _entity_encoder(names: tuple[str, ...]) -> Callable[[tuple[Any, ...]], bytes]:
    """One for all views of these entities, so that it remembers the keys of all of them."""
    return lru_cache(1 << 14)(entity_key_encoder(names))


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
        length = span // TICK
        tile = max(-(-length // _TILES_A_WINDOW // _HOUR), 1) * _HOUR
        return cls(name, length, tile, tuple(columns), tuple(columns.values()))

    def until(self, tile: int) -> int:
        """When nobody asks for the tile any more."""
        return (tile + 1) * self.tile + self.span + KEPT_BEHIND // TICK


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
        self.encode_entity = _entity_encoder(view.entity_names)
        windows = [feature for feature in view.features if isinstance(feature, Window)]
        columns: dict[str, frozenset[str]] = {}
        for window in windows:
            columns[window.column] = columns.get(window.column, frozenset()) | {window.aggregate}
        spans = [span for window in windows for span in window.over]
        self.log = Log.of(view.name, max(spans), columns) if windows else None
        place = {column: n for n, column in enumerate(columns)}
        self.windows = [
            (name, window, span // TICK, place[window.column])
            for window in windows
            for name, span, _ in window.features()
        ]
        self.spans = sorted({span for _, _, span, _ in self.windows})
        self.actives = [
            (active, Log.of(f"{view.name}/{active.name}", active.expires_after, {"closed": frozenset()}))
            for active in view.features
            if isinstance(active, Active)
        ]

        self.logs = [*([self.log] if self.log else []), *(log for _, log in self.actives)]
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

    def values(self, wanted: Sequence[Wanted], found: Sequence[Found], at: int, read: Read) -> dict[str, Value]:
        """The view's features at the moment, from what ``wanted`` brought.

        read: asks the store for more. That is needed for a moment before a correction that is known already.
        """
        values: dict[str, Value] = {}
        opened = list(found)
        if self.log is not None:
            values |= self._window_values(self.log, wanted[0], opened.pop(0), at, read)
        for (active, log), tiles in zip(self.actives, opened, strict=True):
            ((name, _, _),) = active.features()
            values[name] = sum(
                begins <= at < begins + log.span and all(moment is None or moment > at for moment in until)  # type: ignore[operator]  # ints
                for encoded in tiles.events.values()
                for begins, _, until in events_of(encoded)
            )
        return values

    def _window_values(self, log: Log, wanted: Wanted, found: Found, at: int, read: Read) -> dict[str, Value]:
        newest = at // log.tile
        tail = [event for event in _events(found, newest, at, len(log.columns)) if event[0] <= at]
        tail_parts = [summarize(column_of(tail, n), kinds) for n, kinds in enumerate(log.kinds)]
        whole = [(tile, *whole_of(encoded)) for tile, encoded in sorted(found.parts.items())]
        if any(ended > at for _, _, ended in whole):
            whole = _as_of(log, wanted, whole, at, read)
        inside: dict[int, list[Part]] = {}
        for span in self.spans:
            after = at - span
            lowest = (after + 1) // log.tile
            if lowest == newest:
                rows = [event for event in tail if event[0] > after]
                inside[span] = [summarize(column_of(rows, n), kinds) for n, kinds in enumerate(log.kinds)]
                continue
            head = [event for event in _events(found, lowest, at, len(log.columns)) if event[0] > after]
            between = [parts for tile, parts, _ in whole if lowest < tile < newest]
            inside[span] = [
                joined([summarize(column_of(head, n), kinds), *[parts[n] for parts in between], tail_parts[n]], kinds)
                for n, kinds in enumerate(log.kinds)
            ]
        return {name: finished(window, inside[span][place]) for name, window, span, place in self.windows}


def _events(found: Found, tile: int, at: int, width: int) -> Sequence[Event]:
    """The tile's events that no correction known at the moment has superseded."""
    if tile not in found.events:
        return ()
    events = events_of(found.events[tile])
    return holding(events, at, width) if whole_of(found.parts[tile])[1] else events


def _as_of(log: Log, wanted: Wanted, whole: Sequence[_Whole], at: int, read: Read) -> list[_Whole]:
    """The parts as they were before corrections that came after the moment."""
    tiles = tuple(tile for tile, _, ended in whole if ended > at)
    (found,) = read([Wanted(wanted.log, wanted.entity, tiles[0], tiles[-1], tiles)])
    made = dict[int, tuple[Part, ...]]()
    for tile in tiles:
        events = holding(events_of(found.events[tile]), at, len(log.columns))
        made[tile] = tuple(summarize(column_of(events, n), kinds) for n, kinds in enumerate(log.kinds))
    return [(tile, made.get(tile, parts), ended) for tile, parts, ended in whole]
