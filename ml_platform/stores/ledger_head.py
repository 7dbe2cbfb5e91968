"""The note of the ledger's last line, in a file of its own: lines that are cut off at the end leave no gap behind."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml_platform.stores.ledger_chain import Head

_LENGTH = 128  # bytes; a note has 78


@dataclass(frozen=True)
class Note:
    """The opened file, which nobody else writes meanwhile."""

    file: int

    def read(self) -> Head | None:
        """What it says; None where it says nothing that can be read."""
        return _parsed(os.pread(self.file, _LENGTH, 0))

    def write(self, head: Head) -> None:
        """One call of one length: a kill leaves the old note or the new one.

        Not forced to the disk: a note that a power cut leaves behind its ledger is still true.
        """
        os.pwrite(self.file, f"{head.number:012} {head.digest}\n".encode(), 0)


@contextmanager
def held(path: Path) -> Iterator[Note]:
    """Be the one who writes; the lock ends with the process, however it ends."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Note(file)
    finally:
        # Closing is not enough: a child that was forked meanwhile holds the same lock open.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


def read(path: Path) -> Head | None:
    """What stands there, without waiting for a writer; None where nothing can be read."""
    return _parsed(path.read_bytes()[:_LENGTH]) if path.exists() else None


def _parsed(content: bytes) -> Head | None:
    number, _, digest = content.decode(errors="replace").strip().partition(" ")
    return Head(int(number), digest) if number.isdecimal() and len(digest) == 64 else None
