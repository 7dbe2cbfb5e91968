"""Days of the prediction log whose records stand in the lake: their files are let go, so that the disk does not fill.

A day of which files were let go carries a mark. What is logged for it later stands beside the mark, and the day's rows
are those of the lake and of the new files together.
"""

import fcntl
import os
from collections.abc import Callable, Collection
from datetime import date
from pathlib import Path

from ml_platform.stores.prediction_log import Stream, ids_of

_MARK = "moved"


def moved_days(folder: Path, stream: Stream, service: str) -> set[date]:
    """The local days of which files were let go: for them the lake's rows stand."""
    return {date.fromisoformat(mark.parent.name) for mark in (folder / stream / service).glob(f"*/{_MARK}")}


def let_go(
    folder: Path, stream: Stream, service: str, before: date, held: Callable[[date], Collection[str]] | None
) -> list[Path]:
    """Remove the files of days before ``before`` that nobody writes to any more; returns those that were removed.

    held: the ids that the lake holds for a day: a file with any other one stays. None: this stream is not moved, its
    records have served their purpose.

    A kill leaves marks without harm: a day with a mark whose files are still there is read from both.

    Raises:
        HomeDamaged: a line that is not a file's last fails its checksum.
    """
    gone: list[Path] = []
    for day in sorted((folder / stream / service).glob("*/")):
        when = date.fromisoformat(day.name)
        files = sorted(day.glob("*.log")) if when < before else []
        known = frozenset(held(when)) if files and held else None
        gone += [file for file in files if _let_go(file, known)]
    return gone


def _let_go(file: Path, known: frozenset[str] | None) -> bool:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        try:
            # Whoever writes holds it shared for as long as the file is open.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if known is not None:
            if not ids_of(file) <= known:
                return False
            (file.parent / _MARK).touch()
            _sync(file.parent)  # the mark before the loss
        file.unlink()
    finally:
        os.close(descriptor)
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
