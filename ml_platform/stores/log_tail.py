"""Follows the prediction log: what was appended since the last look, by all its writers; it costs them nothing."""

import json
import zlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from ml_platform.spec import HomeDamaged

Record = dict[str, Any]
_READ_AT_ONCE = 1 << 24  # bytes of one file


class LogTail:
    """Where each file of some streams was read up to. A line that is still being written is read at the next look."""

    def __init__(self, folder: Path, service: str, first: date) -> None:
        """``folder``: of the log; ``first``: the first local day to read, from its beginning."""
        self._root, self._service, self._first = folder, service, first
        self._read: dict[Path, int] = {}
        self._names: dict[Path, dict[str, list[str]]] = {}

    def new(self, stream: str) -> list[Record]:
        """The records appended since the last look at this stream, file by file; ``names`` put in place of their id.

        Raises:
            HomeDamaged: a whole line fails its checksum.
        """
        found: list[Record] = []
        for path in self._files(stream):
            for record in self._lines(path):
                if "names_id" in record:
                    self._names.setdefault(path, {})[record["names_id"]] = record["names"]
                    continue
                if "names" in record:
                    record["names"] = self._names[path][record["names"]]
                found.append(record)
        return found

    def _files(self, stream: str) -> list[Path]:
        root = self._root / stream / self._service
        if not root.is_dir():
            return []
        days = sorted(entry for entry in root.iterdir() if date.fromisoformat(entry.name) >= self._first)
        return [path for day in days for path in sorted(day.glob("*.log"))]

    def _lines(self, path: Path) -> Iterator[Record]:
        begin = self._read.get(path, 0)
        if path.stat().st_size <= begin:
            return
        with path.open("rb") as file:
            file.seek(begin)
            while chunk := file.read(_READ_AT_ONCE):
                whole = chunk.rpartition(b"\n")[0]
                if not whole and b"\n" not in chunk:
                    return
                for line in whole.split(b"\n"):
                    body = line[9:]
                    if line[:9] != b"%08x " % zlib.crc32(body):
                        raise HomeDamaged(
                            f"{path}, after byte {begin}: the checksum does not fit, so the record was changed or the "
                            f"disk lost it; restore the file, or delete this line to go on without the record"
                        )
                    begin += len(line) + 1
                    self._read[path] = begin
                    yield json.loads(body)
                file.seek(begin)
