"""The ledger: decisions, verdicts and alias moves, append-only."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TABLE = """
CREATE TABLE IF NOT EXISTS ledger (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    key TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (kind, subject, key))
"""


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
        """Add a line, or return the one that already stands under this key (a retry changes nothing)."""
        with self._open() as db:
            db.execute(
                "INSERT OR IGNORE INTO ledger (at, kind, subject, key, body) VALUES (?, ?, ?, ?, ?)",
                (at.astimezone(UTC).isoformat(), kind, subject, key, json.dumps(body, sort_keys=True)),
            )
        return next(entry for entry in self.entries(kind, subject) if entry.key == key)

    def entries(self, kind: str, subject: str) -> list[Entry]:
        """All lines of this kind about this subject, oldest first."""
        with self._open() as db:
            rows = db.execute(
                "SELECT number, at, kind, subject, key, body FROM ledger WHERE kind = ? AND subject = ? ORDER BY number",
                (kind, subject),
            ).fetchall()
        return [
            Entry(number=n, at=datetime.fromisoformat(at), kind=k, subject=s, key=key, body=json.loads(body))
            for n, at, k, s, key, body in rows
        ]

    def last(self, kind: str, subject: str) -> Entry | None:
        """The newest line, if any."""
        return (self.entries(kind, subject) or [None])[-1]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=30)) as db, db:
            db.execute(_TABLE)
            yield db
