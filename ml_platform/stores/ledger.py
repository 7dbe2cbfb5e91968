"""The ledger: registrations, verdicts, approvals, alias moves. Append-only, and each line follows from the one before.

A field that names an entity is taken out when that is forgotten, and nothing else ever is. `ledger_kinds.py` lists what
is written, `ledger_body.py` how a field is taken out, `ledger_chain.py` says what was tampered with.
"""

import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_platform.spec import HomeDamaged, Verdict
from ml_platform.stores.ledger_body import fields, opened, sealed, without
from ml_platform.stores.ledger_body import read as opened_with_gaps
from ml_platform.stores.ledger_chain import GENESIS, Head, Line, behind, breaks
from ml_platform.stores.ledger_head import Note, held, read
from ml_platform.stores.ledger_kinds import CHAIN, REDACTION
from ml_platform.stores.texts import Words

# What a reason adds to show what it means: rows and predictions by name. It stands in the check, and not here for good.
_EXAMPLES = re.compile(r"; for example [^\n]*")
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY_SECONDS = 30
_TABLE = """
CREATE TABLE ledger (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, key TEXT NOT NULL,
    body TEXT NOT NULL, before TEXT NOT NULL, digest TEXT NOT NULL, UNIQUE (kind, subject, key))
"""
# Against accidents: whoever means to change a line drops them first, and `verify` finds the line.
_KEEPS_WORDS = (
    "CREATE TRIGGER keeps_words BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'a line is never changed'); END"
)
_GUARDS = (
    _KEEPS_WORDS,
    "CREATE TRIGGER keeps_lines BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'a line is never removed'); END",
    f"""
CREATE TRIGGER grows_at_its_end BEFORE INSERT ON ledger
WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM ledger)
  OR NEW.before IS NOT coalesce((SELECT digest FROM ledger ORDER BY number DESC LIMIT 1), '{GENESIS}')
  OR EXISTS (SELECT 1 FROM ledger WHERE kind = NEW.kind AND subject = NEW.subject AND key = NEW.key)
BEGIN SELECT RAISE(ABORT, 'a line is new, goes behind the last one and carries its digest'); END""",
)
_ENTRY = "SELECT number, at, kind, subject, key, body FROM ledger"
_LINES = "SELECT number, at, kind, subject, key, body, before, digest FROM ledger ORDER BY number"
_CURE = (
    "restore ledger.db and ledger.head from a copy of the state folder; without one, set both aside: a new ledger "
    "begins with the next line, and `ml-platform adopt` takes the champion over"
)
_MOST_NAMED = 5  # breaks in one sentence


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line: ``number`` grows by one, ``at`` is the platform's time, ``body`` what was found and done.

    redacted: the fields of the body that were taken out; a sentence that says so stands in their place.
    """

    number: int
    at: datetime
    kind: str
    subject: str
    key: str
    body: Mapping[str, Any]
    redacted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ledger:
    """Lines are only ever added; a line with the same kind, subject and key is written once."""

    path: Path

    @property
    def head_path(self) -> Path:
        """The note of the last line; it belongs to the ledger wherever that is copied to."""
        return self.path.with_suffix(".head")

    def write(
        self, kind: str, subject: str, key: str, at: datetime, body: Mapping[str, Any] | Callable[[], Mapping[str, Any]]
    ) -> Entry:
        """Add a line, or return the one that already stands under this key (a retry changes nothing).

        body: where it follows from other lines, a function that reads them: nobody else writes while it does. A reason
        is kept without the examples that name rows. A ledger from before the chain is chained first.

        Raises:
            HomeDamaged: the file is not a ledger any more.
        """
        told = (_moment(at), kind, subject, key)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._adding(_moment(at)) as db:
            stands = db.execute(f"{_ENTRY} WHERE kind = ? AND subject = ? AND key = ?", told[1:]).fetchone()
            if stands is None:
                written = (*told, _kept(body() if callable(body) else body))
                stands = (_add(db, _last(db), *written).number, *written)
        return _entry(stands)

    def naming(self, words: Words) -> Mapping[int, Sequence[str]]:
        """Number of a line -> its fields that name what is looked for and can be taken out.

        Raises:
            HomeDamaged: the file is not a ledger any more.
        """
        return _naming(self._rows(f"{_ENTRY} ORDER BY number", chained=True), words)

    def redact(self, words: Words, entity: str, forgotten: str, at: datetime) -> int:
        """Take the fields that name what is looked for out of their lines, and say so in a line for each: all or none.

        The lines keep their place and digest. What was written before fields were sealed is not changed.

        entity: its name. forgotten: the salted hash of its value. Returns how many lines were redacted.

        Raises:
            HomeDamaged: the file is not a ledger any more.
        """
        if not self.path.exists():
            return 0
        with self._adding(_moment(at)) as db:
            lines = {row[0]: Line(*row) for row in db.execute(_LINES)}
            found = _naming([line[:6] for line in lines.values()], words)
            db.execute("DROP TRIGGER IF EXISTS keeps_words")
            for number, names in found.items():
                line = lines[number]
                body = {
                    "line": number,
                    "digest": line.digest,
                    "fields": names,
                    "entity": entity,
                    "forgotten": forgotten,
                }
                key = f"{number}: {', '.join(names)}"
                _add(db, _last(db), _moment(at), REDACTION, line.subject, key, _kept(body))
                db.execute("UPDATE ledger SET body = ? WHERE number = ?", (without(line.body, names), number))
            db.execute(_KEEPS_WORDS)
        return len(found)

    def entries(self, kind: str, subject: str) -> list[Entry]:
        """All lines of this kind about this subject, oldest first; none where nothing was written yet.

        Raises:
            HomeDamaged: the file is not a ledger any more.
        """
        return self.about(subject, (kind,))

    def about(self, subject: str, kinds: Collection[str]) -> list[Entry]:
        """All lines of these kinds about this subject, oldest first.

        Raises:
            HomeDamaged: the file is not a ledger any more.
        """
        asked = f"{_ENTRY} WHERE subject = ? AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY number"
        return [_entry(row) for row in self._rows(asked, subject, *kinds)]

    def last(self, kind: str, subject: str) -> Entry | None:
        """The newest line, if any."""
        entries = self.entries(kind, subject)
        return entries[-1] if entries else None

    def all(self) -> list[Entry]:
        """Every line, oldest first.

        Raises:
            HomeDamaged: the file is not a ledger any more.
        """
        return [_entry(row) for row in self._rows(f"{_ENTRY} ORDER BY number")]

    def of_kind(self, kind: str) -> list[Entry]:
        """All lines of this kind, whatever they are about, oldest first."""
        return [_entry(row) for row in self._rows(f"{_ENTRY} WHERE kind = ? ORDER BY number", kind)]

    def height(self) -> int:
        """The number of the last line; 0 before the first."""
        return next((int(number) for (number,) in self._rows("SELECT coalesce(max(number), 0) FROM ledger")), 0)

    def subjects(self, kinds: Collection[str]) -> list[str]:
        """What lines of these kinds are about, by name."""
        asked = f"SELECT DISTINCT subject FROM ledger WHERE kind IN ({', '.join('?' * len(kinds))}) ORDER BY subject"
        return [subject for (subject,) in self._rows(asked, *kinds)]

    def verify(self) -> Verdict:
        """Whether all lines stand as they were written; names those that were changed, removed, inserted or moved.

        Always all of them: ten thousand take about a second, and an old line is as good to tamper with as a new
        one. *unknown*: nothing was written yet, or nothing since before lines were chained.

        Raises:
            HomeDamaged: the file is not a ledger any more.
        """
        head = read(self.head_path)  # before the lines: a writer notes a line when it stands
        rows = self._rows(_LINES, chained=True)
        if not rows and (head is None or head.number == 0):
            return Verdict.unknown(f"nothing was chained in {self.path} yet; the next line that is written begins it")
        found = breaks([Line(*row) for row in rows], head)
        if found:
            more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
            named = "; ".join(one.sentence for one in found[:_MOST_NAMED])
            measures = {"lines": len(rows), "first_broken": found[0].number}
            return Verdict(state="fail", reason=f"{self.path}: {named}{more}: {_CURE}", measures=measures)
        last = Line(*rows[-1])
        reason = f"all {len(rows)} lines follow one from another; the last is {last.number}, {last.digest[:16]}"
        return Verdict(state="pass", reason=reason, measures={"lines": len(rows), "digest": last.digest})

    def _rows(self, asked: str, *values: str, chained: bool = False) -> list[Any]:
        """What a query finds; nothing where no ledger, or (asked for what is ``chained``) no chain, was begun."""
        if not self.path.exists():
            return []
        with self._open() as db:
            needed = "digest" if chained else "body"
            return db.execute(asked, values).fetchall() if needed in _columns(db) else []

    @contextmanager
    def _adding(self, at: str) -> Iterator[sqlite3.Connection]:
        """Be the one who writes, in one transaction, to a ledger that is chained; the last line is noted behind it."""
        with held(self.head_path) as note:
            with self._open() as db:
                db.execute("BEGIN IMMEDIATE")
                if "digest" not in _columns(db):
                    _begin(db, note, at)
                is_whole = _stands(db, note.read())
                yield db
                last = _last(db)
            # A note that does not fit what stands is kept: it is the one trace of lines that were cut off.
            if is_whole:
                note.write(last)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS)) as db, db:
                # A line that was noted may not be taken back by a power cut.
                db.execute("PRAGMA synchronous = EXTRA")
                db.execute("PRAGMA secure_delete = ON")  # what an old ledger named leaves its file when it is chained
                yield db
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _DAMAGED:
                raise
            raise HomeDamaged(
                f"the ledger {self.path} is damaged ({error}); restore it, or delete the state folder "
                f"{self.path.parent} and run again"
            ) from error


def without_examples(thing: Any) -> Any:
    """What is kept of a text, or of all texts in a body."""
    if isinstance(thing, str):
        return _EXAMPLES.sub("", thing)
    if isinstance(thing, Mapping):
        return {name: without_examples(value) for name, value in thing.items()}
    return [without_examples(value) for value in thing] if isinstance(thing, list | tuple) else thing


def _begin(db: sqlite3.Connection, note: Note, at: str) -> None:
    """Make the table; lines of a ledger from before the chain are chained as they stand, which a line says."""
    old = db.execute(f"{_ENTRY} ORDER BY number").fetchall() if _columns(db) else []
    db.execute("DROP TABLE IF EXISTS ledger")
    db.execute(_TABLE)
    last = Head(0, GENESIS)
    if note.read() is None:
        note.write(last)  # from now on a missing note was taken away
    for number, *told, body in old:
        last = _add(db, Head(number - 1, last.digest), *told, _kept(opened(body)))
    for guard in _GUARDS:
        db.execute(guard)
    if old:
        _add(db, last, at, CHAIN, "ledger", "begun", _kept({"lines": len(old)}))


def _add(db: sqlite3.Connection, last: Head, *told: str) -> Head:
    line = behind(last, *told)
    db.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?)", line)
    return Head(line.number, line.digest)


def _last(db: sqlite3.Connection) -> Head:
    found = db.execute("SELECT number, digest FROM ledger ORDER BY number DESC LIMIT 1").fetchone()
    return Head(*found) if found else Head(0, GENESIS)


def _stands(db: sqlite3.Connection, head: Head | None) -> bool:
    """Whether the noted line is there."""
    if head is None:
        return False
    asked = "SELECT 1 FROM ledger WHERE number = ? AND digest = ?"
    return head == Head(0, GENESIS) or db.execute(asked, head).fetchone() is not None


def _columns(db: sqlite3.Connection) -> set[str]:
    return {row[1] for row in db.execute("PRAGMA table_info(ledger)")}


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _kept(body: Mapping[str, Any]) -> str:
    return sealed(without_examples(body))


def _naming(rows: Iterable[Sequence[Any]], words: Words) -> dict[int, list[str]]:
    """rows: as ``_ENTRY`` reads them. A redaction names nothing, and is kept whole whatever its words are like."""
    texts = [
        (row[0], name, text) for row in rows if row[2] != REDACTION for name, text in sorted(fields(row[5]).items())
    ]
    found: dict[int, list[str]] = {}
    for (number, name, _), named in zip(texts, words.found([text for *_, text in texts]), strict=True):
        if named:
            found.setdefault(number, []).append(name)
    return found


def _entry(row: tuple[int, str, str, str, str, str]) -> Entry:
    number, at, kind, subject, key, body = row
    told: dict[str, Any] = {"number": number, "at": datetime.fromisoformat(at), "kind": kind, "subject": subject}
    fields_told, redacted = opened_with_gaps(body)
    return Entry(**told, key=key, body=fields_told, redacted=redacted)
