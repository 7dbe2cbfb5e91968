"""Records taken out of the prediction log's write-ahead files, which nobody may be writing meanwhile."""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_platform.stores.prediction_log import Stream

_HEAD = 9  # bytes before a record's JSON: the checksum in hexadecimal digits, a space
Chosen = Callable[[Mapping[str, Any]], bool]


def records(folder: Path, stream: Stream, service: str) -> Iterator[dict[str, Any]]:
    """Every record of a service's stream; a file's last line that was torn off by a kill is none."""
    for path in _paths(folder, stream, service):
        for line in path.read_bytes().split(b"\n"):
            record = _record(line)
            if record is not None and "id" in record:
                yield record


def services(folder: Path, stream: Stream) -> list[str]:
    """The services that have such a stream, declared or not."""
    root = folder / stream
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []


def purge(folder: Path, stream: Stream, service: str, chosen: Chosen) -> int:
    """Take the chosen records out; returns how many they were. A file is exchanged whole or not at all."""
    for draft in (folder / stream / service).glob("*/*.draft"):
        draft.unlink()  # of a purge that was killed
    return sum(_purge_file(path, chosen) for path in _paths(folder, stream, service))


def _purge_file(path: Path, chosen: Chosen) -> int:
    lines = path.read_bytes().split(b"\n")
    torn = [line for line in lines[-1:] if line and _record(line) is None]
    gone = [line for line in lines if (record := _record(line)) is not None and "id" in record and chosen(record)]
    if not gone and not torn:
        return 0
    left_out = {b"", *gone, *torn}  # nobody reads a torn line, and it may say what is to be gone
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(b"".join(b"%b\n" % line for line in lines if line not in left_out))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return len(gone)


def _paths(folder: Path, stream: Stream, service: str) -> list[Path]:
    return sorted((folder / stream / service).glob("*/*.log"))


def _record(line: bytes) -> dict[str, Any] | None:
    body = line[_HEAD:]
    if line[:_HEAD] != b"%08x " % zlib.crc32(body):
        return None
    record: dict[str, Any] = json.loads(body)
    return record
