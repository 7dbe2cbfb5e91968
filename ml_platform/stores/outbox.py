"""What people were told: each message once on each channel, kept until it was taken, whatever is killed in between.

A message is written down before it is sent and marked after it was taken. A kill between the two sends it once more,
under the same key; none is ever lost. Its words are removed once nobody needs them any more.
"""

import fcntl
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from ml_platform.spec import HomeDamaged
from ml_platform.spec.alerts import Alert, Part

_BUSY_SECONDS = 30
_TABLES = """
CREATE TABLE IF NOT EXISTS alert (id TEXT PRIMARY KEY, body TEXT NOT NULL, ended TEXT);
CREATE TABLE IF NOT EXISTS message (
    number INTEGER PRIMARY KEY, alert TEXT NOT NULL, part TEXT NOT NULL, channel TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0, problem TEXT NOT NULL DEFAULT '',
    taken REAL, UNIQUE (alert, part, channel));
CREATE TABLE IF NOT EXISTS look (one INTEGER PRIMARY KEY CHECK (one = 1), day TEXT NOT NULL);
"""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# An end waits until its beginning was taken on the same channel.
_DUE = """
SELECT message.number, part, channel, tries, body FROM message JOIN alert ON alert.id = message.alert
WHERE taken IS NULL AND not_before <= ? AND (part = 'opened' OR EXISTS (
    SELECT 1 FROM message AS first WHERE first.alert = message.alert AND first.channel = message.channel
    AND first.part = 'opened' AND first.taken IS NOT NULL))
ORDER BY message.number
"""
FIRST_WAIT, LONGEST_WAIT = 30.0, 3600.0  # seconds; a channel that fails for a day is tried some thirty times


@dataclass(frozen=True, kw_only=True)
class Due:
    """A message that waits to be sent. tries: how often it was sent and not taken."""

    number: int
    alert: Alert
    part: Part
    channel: str
    tries: int


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How a message stands. taken: wall seconds since 1970, None: it waits. problem: of the last try."""

    alert: str
    place: str
    part: Part
    channel: str
    tries: int
    not_before: float
    problem: str
    taken: float | None


@dataclass(frozen=True)
class Outbox:
    """One SQLite file; several processes may look into it, one at a time sends."""

    path: Path

    def note(
        self, begun: Sequence[Alert], ended: Mapping[str, date], channels: Collection[str], looked: date | None
    ) -> None:
        """Note what is to be told, all of it or nothing: what was noted before is not noted again.

        begun: told of on these channels, and of its end if it has one. ended: id -> day of what was told of and is
        over. looked: the next look begins with this day.
        """
        with self._open() as db:
            for alert in begun:
                db.execute("INSERT OR IGNORE INTO alert VALUES (?, ?, NULL)", (alert.id, _body(alert)))
                _add(db, alert.id, "opened", channels)
            over = {alert.id: alert.ended for alert in begun if alert.ended} | dict(ended)
            for one, day in over.items():
                _end(db, one, day)
            if looked:
                db.execute("INSERT OR REPLACE INTO look VALUES (1, ?)", (looked.isoformat(),))

    def noted(self) -> dict[str, Alert]:
        """Id -> each alert that was ever noted; one that is over has its last day."""
        return {one: _alert(body) for one, body in self._rows("SELECT id, body FROM alert ORDER BY id")}

    def due(self, wall: float) -> list[Due]:
        """What is to be sent now, in the order in which it was noted. ``wall``: seconds since 1970."""
        return [
            Due(number=number, alert=_alert(body), part=part, channel=channel, tries=tries)
            for number, part, channel, tries, body in self._rows(_DUE, wall)
        ]

    def taken(self, message: Due, wall: float, problem: str = "") -> None:
        """Note that it was taken; with the last one of an alert its words go."""
        with self._open() as db:
            db.execute(
                "UPDATE message SET taken = ?, tries = tries + 1, problem = ? WHERE number = ?",
                (wall, problem, message.number),
            )
            asked = "SELECT 1 FROM message WHERE alert = ? AND part = 'opened' AND taken IS NULL"
            if db.execute(asked, (message.alert.id,)).fetchone() is None:
                silent = replace(message.alert, sentence="")
                db.execute("UPDATE alert SET body = ? WHERE id = ?", (_body(silent), message.alert.id))

    def put_off(self, message: Due, wall: float, problem: str, after: float | None = None) -> None:
        """Note that it was not taken: the channel is tried again after twice the time, up to an hour."""
        wait = max(min(FIRST_WAIT * 2**message.tries, LONGEST_WAIT), after or 0.0)
        with self._open() as db:
            db.execute("UPDATE message SET tries = tries + 1, problem = ? WHERE number = ?", (problem, message.number))
            # Of all that waits for this channel: who cannot be reached is not asked once for each message.
            db.execute(
                "UPDATE message SET not_before = max(not_before, ?) WHERE channel = ? AND taken IS NULL",
                (wall + wait, message.channel),
            )

    def messages(self) -> list[Kept]:
        """All that were noted, oldest first."""
        asked = """SELECT alert, json_extract(body, '$.place'), part, channel, tries, not_before, problem, taken
            FROM message JOIN alert ON alert.id = message.alert ORDER BY number"""
        names = ("alert", "place", "part", "channel", "tries", "not_before", "problem", "taken")
        return [Kept(**dict(zip(names, row, strict=True))) for row in self._rows(asked)]

    def looked(self) -> date | None:
        """The newest day of incidents that was looked at; None: nobody ever looked."""
        rows = self._rows("SELECT day FROM look")
        return date.fromisoformat(rows[0][0]) if rows else None

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """Be the only one who sends: False if another process does, who then sends what is due."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _rows(self, asked: str, *values: object) -> list[Any]:
        """What a query finds; nothing where nothing was ever noted."""
        if not self.path.exists():
            return []
        with self._open() as db:
            return db.execute(asked, values).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS)) as db, db:
                db.execute("PRAGMA synchronous = EXTRA")  # what was noted is not taken back by a power cut
                db.execute("PRAGMA secure_delete = ON")  # words that were removed leave the file
                db.executescript(_TABLES)
                yield db
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _DAMAGED:
                raise
            raise HomeDamaged(
                f"{self.path} is damaged ({error}); set it aside: what lasts is told of once more then"
            ) from error


def _add(db: sqlite3.Connection, alert: str, part: Part, channels: Collection[str]) -> None:
    rows = [(alert, part, channel) for channel in sorted(channels)]
    db.executemany("INSERT OR IGNORE INTO message (alert, part, channel) VALUES (?, ?, ?)", rows)


def _end(db: sqlite3.Connection, alert: str, day: date) -> None:
    """On the channels on which its beginning was told; an event has no end."""
    row = db.execute("SELECT body, ended FROM alert WHERE id = ?", (alert,)).fetchone()
    if row is None or row[1] is not None:
        return
    ended = replace(_alert(row[0]), ended=day)
    db.execute("UPDATE alert SET ended = ?, body = ? WHERE id = ?", (day.isoformat(), _body(ended), alert))
    if ended.signal != "event":
        asked = "SELECT channel FROM message WHERE alert = ? AND part = 'opened'"
        _add(db, alert, "ended", [channel for (channel,) in db.execute(asked, (alert,))])


def _body(alert: Alert) -> str:
    return json.dumps({**asdict(alert), "began": str(alert.began), "ended": str(alert.ended) if alert.ended else None})


def _alert(body: str) -> Alert:
    told = json.loads(body)
    ended = date.fromisoformat(told["ended"]) if told["ended"] else None
    return Alert(**{**told, "began": date.fromisoformat(told["began"]), "ended": ended})
