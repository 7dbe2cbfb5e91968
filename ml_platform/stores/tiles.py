"""The embedded store of live windows: tiles of events in one SQLite file.

A tile is addressed by its log's name, its entity (Feast's bytes of the key) and its number. What it holds is made by
``features.tiles``; here it is two byte strings, one that says all about the tile as a whole and one with its events.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from ml_platform.stores.exchange import Exchange

_BUSY_SECONDS = 30
_CACHE_KIB = 64 * 1024  # SQLite's own 2 MB are read through with every day that is dropped
_CHECKPOINT_PAGES = 8_000  # 32 MB; at the usual 1,000 the same tiles are copied back again and again
_A_STATEMENT = (1, 4, 16, 64, 256, 1024)  # places that are asked for at once; few sizes, so that all stay prepared
_WRITE = (
    "INSERT INTO tiles VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until), "
    "parts = excluded.parts, events = excluded.events"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The tiles ``first`` to ``last`` of one entity's log; of those in ``opened`` the events, too."""

    log: str
    entity: bytes
    first: int
    last: int
    opened: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What stands there, by number of the tile."""

    parts: dict[int, bytes] = field(default_factory=dict)
    events: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One tile's change: ``make`` gets its events as they stand and returns (parts, events), or None to leave it.

    It may be called again when another writer was quicker. until: unix microseconds after which nobody asks for it;
    of several changes the latest counts.
    """

    log: str
    entity: bytes
    tile: int
    until: int
    make: Callable[[bytes | None], tuple[bytes, bytes] | None]


class TileStore(Protocol):
    """Where live windows are kept; safe with several readers and writers at once."""

    def read(self, wanted: Sequence[Wanted]) -> list[Found]:
        """Everything asked for, in the order asked."""
        ...

    def pack(self, wanted: Sequence[Wanted]) -> Exchange[list[Found]] | None:
        """The same as a question to a server, for who sends it himself; None where no server is asked."""
        ...

    def update(self, changes: Sequence[Change]) -> int:
        """Make the changes, each whole or not at all; returns how many tiles were written."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Updates made within are one, where the store can do that: it saves time. Nobody may rely on it."""
        ...

    def prune(self, before: int) -> None:
        """Drop the tiles that nobody asks for after ``before`` (unix microseconds)."""
        ...


_Place = tuple[str, bytes, int]


class SqliteTiles:
    """Tiles in a SQLite file; the changes of one ``update`` are one transaction."""

    def __init__(self, path: Path) -> None:
        """``path``: made on the first use."""
        self.path = path
        self._local = threading.local()

    def pack(self, wanted: Sequence[Wanted]) -> Exchange[list[Found]] | None:
        """No server is asked."""
        return None

    def read(self, wanted: Sequence[Wanted]) -> list[Found]:
        """Everything asked for, in the order asked."""
        db, answers = self._connection(), []
        for one in wanted:
            found = Found()
            for tile, parts, events in db.execute(
                _read(len(one.opened)), (*one.opened, one.log, one.entity, one.first, one.last)
            ):
                found.parts[tile] = parts
                if events is not None:
                    found.events[tile] = events
            answers.append(found)
        return answers

    def update(self, changes: Sequence[Change]) -> int:
        """Make the changes, all or none; returns how many did something."""
        by_place: dict[_Place, list[Change]] = {}
        for change in changes:
            by_place.setdefault((change.log, change.entity, change.tile), []).append(change)
        db, written = self._connection(), 0
        with self.together():
            held, rows = _events(db, list(by_place)), []
            for place, some in by_place.items():
                events, new = held.get(place), None
                for change in some:
                    made = change.make(events)
                    if made is not None:
                        new, events, written = made, made[1], written + 1
                if new is not None:
                    rows.append((*place, max(change.until for change in some), *new))
            db.executemany(_WRITE, rows)
        return written

    @contextmanager
    def together(self) -> Iterator[None]:
        """Updates made within are one transaction."""
        db = self._connection()
        if db.in_transaction:
            yield
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def prune(self, before: int) -> None:
        """Drop the tiles that nobody asks for after ``before`` (unix microseconds)."""
        self._connection().execute("DELETE FROM tiles WHERE until < ?", (before,))

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "db"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            # What a power cut takes is delivered again: by the sender, or by the day's asset from the raw table.
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            db.execute(
                "CREATE TABLE IF NOT EXISTS tiles (log TEXT, entity BLOB, tile INTEGER, until INTEGER, parts BLOB, "
                "events BLOB, PRIMARY KEY (log, entity, tile)) WITHOUT ROWID"
            )
            db.execute("CREATE INDEX IF NOT EXISTS tiles_until ON tiles (until)")
            self._local.db = db
        connection: sqlite3.Connection = self._local.db
        return connection

    def __getstate__(self) -> dict[str, Any]:
        """Connections stay in their process."""
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open anew."""
        self.__init__(**state)  # type: ignore[misc]


def _events(db: sqlite3.Connection, places: Sequence[_Place]) -> dict[_Place, bytes]:
    """The events that stand at these places, many a statement: each costs as much as reading ten of them."""
    found: dict[_Place, bytes] = {}
    for start in range(0, len(places), _A_STATEMENT[-1]):
        some = places[start : start + _A_STATEMENT[-1]]
        size = next(size for size in _A_STATEMENT if size >= len(some))
        values = [value for place in (*some, *[some[-1]] * (size - len(some))) for value in place]
        for *place, events in db.execute(_asked(size), values):
            found[tuple(place)] = events
    return found


@cache
def _asked(size: int) -> str:
    return (
        f"WITH asked(l, e, t) AS (VALUES {', '.join(['(?, ?, ?)'] * size)}) "
        "SELECT log, entity, tile, events FROM asked CROSS JOIN tiles ON log = l AND entity = e AND tile = t"
    )


def _read(opened: int) -> str:
    marks = " OR ".join(["tile = ?"] * opened)
    return (
        f"SELECT tile, parts, CASE WHEN {marks} THEN events END FROM tiles "
        "WHERE log = ? AND entity = ? AND tile BETWEEN ? AND ?"
    )
