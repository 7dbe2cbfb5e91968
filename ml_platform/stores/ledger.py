"""The ledger: decisions, verdicts and alias moves, append-only. It names no entity, but for salted hashes."""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_platform.spec import HomeDamaged

# What a reason adds to show what it means: rows and predictions by name. It stands in the check, and not here for good.
_EXAMPLES = re.compile(r"; for example [^\n]*")
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY_SECONDS = 30
_TABLE = """
CREATE TABLE IF NOT EXISTS ledger (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    key TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (kind, subject, key))
"""
_SELECT = "SELECT number, at, kind, subject, key, body FROM ledger WHERE kind = ? AND subject = ?"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line: ``number`` grows by one, ``at`` is the platform's time, ``body`` what was found and done."""

    number: int
    at: datetime
    kind: str
    subject: str
    key: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Ledger:
    """Lines are only ever added; a line with the same kind, subject and key is written once."""

    path: Path

    def write(self, kind: str, subject: str, key: str, at: datetime, body: Mapping[str, Any]) -> Entry:
        """Add a line, or return the one that already stands under this key (a retry changes nothing).

        A reason is kept without the examples that name rows.

        Raises:
            HomeDamaged: the file is not a ledger any more.
        """
        kept = json.dumps(without_examples(body), sort_keys=True)
        line = (at.astimezone(UTC).isoformat(), kind, subject, key, kept)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.execute(_TABLE)
            db.execute(
                "INSERT INTO ledger (at, kind, subject, key, body) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (kind, subject, key) DO NOTHING",
                line,
            )
            (stands,) = db.execute(f"{_SELECT} AND key = ?", (kind, subject, key)).fetchall()
        return _entry(stands)

    def entries(self, kind: str, subject: str) -> list[Entry]:
        """All lines of this kind about this subject, oldest first; none where nothing was written yet.

        Raises:
            HomeDamaged: the file is not a ledger any more.
        """
        if not self.path.exists():
            return []
        with self._open() as db:
            db.execute(_TABLE)
            rows = db.execute(f"{_SELECT} ORDER BY number", (kind, subject)).fetchall()
        return [_entry(row) for row in rows]

    def last(self, kind: str, subject: str) -> Entry | None:
        """The newest line, if any."""
        entries = self.entries(kind, subject)
        return entries[-1] if entries else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS)) as db, db:
                yield db
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _DAMAGED:
                raise
            raise HomeDamaged(
                f"the ledger {self.path} is damaged ({error}); restore it, or delete the state folder "
                f"{self.path.parent} and run again"
            ) from error


def _entry(row: tuple[int, str, str, str, str, str]) -> Entry:
    number, at, kind, subject, key, body = row
    moment = datetime.fromisoformat(at)
    return Entry(number=number, at=moment, kind=kind, subject=subject, key=key, body=json.loads(body))


def without_examples(thing: Any) -> Any:
    """What is kept of a text, or of all texts in a body."""
    if isinstance(thing, str):
        return _EXAMPLES.sub("", thing)
    if isinstance(thing, Mapping):
        return {name: without_examples(value) for name, value in thing.items()}
    return [without_examples(value) for value in thing] if isinstance(thing, list | tuple) else thing
