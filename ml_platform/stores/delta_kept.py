"""What a process keeps of Delta tables between reads: opened tables, and the rows of files, which never change."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import polars as pl
from deltalake import DeltaTable

_KEPT_BYTES = 128 << 20  # of rows; a day of the flights project is about one megabyte


@dataclass(frozen=True)
class _Opened:
    table: DeltaTable
    commit: Path
    following: Path
    identity: tuple[int, int]


class OpenedTables:
    """Tables of a local folder as of their newest version: opening one replays its log, looking for a commit does not.

    What is kept is only read, never brought forward: a frame that was made of it stays as of its version.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Opened] = {}

    def newest(self, uri: str) -> DeltaTable | None:
        """The table, if nothing was committed since it was kept and its folder is still the same one."""
        held = self._kept.get(uri)
        if held is None or held.following.exists() or _identity(held.commit) != held.identity:
            return None
        return held.table

    def keep(self, uri: str, table: DeltaTable) -> None:
        """``table``: opened at its newest version. One whose log is not in a local folder is not kept."""
        place = urlparse(table.table_uri)
        if place.scheme not in ("", "file"):
            return
        log, version = Path(unquote(place.path)) / "_delta_log", table.version()
        commit = log / f"{version:020}.json"
        identity = _identity(commit)
        if identity is not None:
            self._kept[uri] = _Opened(table, commit, log / f"{version + 1:020}.json", identity)


def _identity(commit: Path) -> tuple[int, int] | None:
    """Tells the commit from one of the same number in a table that was deleted and made anew."""
    try:
        found = commit.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


class KeptRows:
    """Rows of files by their names, those used longest ago dropped first."""

    def __init__(self, most_bytes: int = _KEPT_BYTES) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[pl.DataFrame, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def rows(self, file: str, read: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """The file's rows, read if they are not kept."""
        with self._lock:
            if file in self._kept:
                self._kept.move_to_end(file)
                return self._kept[file][0]
        found = read()
        size = int(found.estimated_size())
        with self._lock:
            if file not in self._kept and size <= self.most_bytes // 4:  # one big file must not push out all others
                self._kept[file] = found, size
                self._bytes += size
            while self._bytes > self.most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][1]
        return found
