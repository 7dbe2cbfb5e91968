"""SQLite files as such: found by their first bytes, read without a trace, and written anew where rows were removed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_MAGIC = b"SQLite format 3\x00"
_BUSY_SECONDS = 30


def is_sqlite(path: Path) -> bool:
    """Whether the file is one of SQLite's."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, also not beside the file, as long as nobody else has it open."""
    log = path.with_name(f"{path.name}-wal")
    still = not log.exists() or log.stat().st_size == 0
    address = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
    # Handed to a pool by some; each closes it in the thread that it likes.
    return sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """``connect_to_read`` for a ``with`` block."""
    with closing(connect_to_read(path)) as db:
        yield db


@contextmanager
def removing(path: Path) -> Iterator[sqlite3.Connection]:
    """A file to remove rows from, in one transaction; afterwards no free page and no write-ahead log holds them."""
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = ON")
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
