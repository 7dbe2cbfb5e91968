"""The prediction log: what a service answered and the truths posted to it, as write-ahead files.

``<folder>/<stream>/<service>/<day>/<pid>-<n>.log`` holds one record a line: a checksum, a space, JSON. Each writing
process has its own files. Durability: a record is in the kernel before its answer leaves, so a killed process never
loses an answered prediction; a power cut loses at most the last ``sync_every`` of them.
"""

import fcntl
import json
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ml_platform.spec import HomeDamaged, StateError
from ml_platform.stores.prediction_record import Failure, Shadowed, iso, line, prediction_lines
from ml_platform.stores.prediction_record import Prediction as Prediction

Stream = Literal["predictions", "labels", "failures", "shadow"]
_OPEN_FILES = 8  # a writer touches today's file and, around midnight or with late labels, a few others
_TIME = pl.Datetime("us", "UTC")
PREDICTION_COLUMNS: dict[str, pl.DataType] = {
    "prediction_id": pl.String(),
    "service": pl.String(),
    "model": pl.String(),
    "model_version": pl.String(),
    "probability": pl.Float64(),
    "asked_at": _TIME,
    "as_of": _TIME,
    "answered_at": _TIME,
    "entities": pl.String(),
    "feature_names": pl.List(pl.String()),
    "features": pl.List(pl.Float64()),
    "variant": pl.String(),
    "chance": pl.Float64(),
    "seconds": pl.Float64(),
}
LABEL_COLUMNS: dict[str, pl.DataType] = {
    "prediction_id": pl.String(),
    "service": pl.String(),
    "value": pl.Int64(),
    "known_at": _TIME,
}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The label of a prediction and when it became known (platform time).

    A value of None says that there is no truth and never will be (a cancelled flight).
    """

    prediction_id: str
    value: int | None
    known_at: datetime


@dataclass(frozen=True)
class Reading:
    """What was read: distinct records, how many doubles were dropped, how many files end in a torn line."""

    frame: pl.DataFrame
    doubles: int
    torn: int


class PredictionLog:
    """Appends and reads both streams; safe to use from several threads."""

    def __init__(self, folder: Path, *, sync_every: timedelta = timedelta(seconds=1)) -> None:
        """Nothing is made or opened before the first append."""
        self.folder = folder
        self._every = sync_every
        self._files: dict[tuple[Stream, str, date], _File] = {}
        self._lock = threading.Lock()  # around the table of files and each write
        self._sync_lock = threading.Lock()  # only its holder closes files; taken before the other
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._broken: OSError | None = None

    def append_predictions(self, service: str, day: date, predictions: Sequence[Prediction]) -> None:
        """Add answers asked on this local day, all in one write.

        Raises:
            StateError: the disk refused; nothing of the batch is in the log.
        """
        with self._lock:
            file = self._file("predictions", service, day)
            names = {columns: _names_id(columns) for columns in {p.feature_names for p in predictions}}
            fresh = [(key, list(columns)) for columns, key in names.items() if key not in file.names]
            lines = [line({"names_id": key, "names": columns}) for key, columns in fresh]
            lines += prediction_lines(predictions, names)
            self._write(file, b"".join(lines))
            file.names.update(key for key, _ in fresh)

    def append_failures(self, service: str, day: date, failures: Sequence[Failure]) -> None:
        """Add rows, asked on this local day, that a version could not answer.

        Raises:
            StateError: the disk refused; nothing of the batch is in the log.
        """
        with self._lock:
            self._write(self._file("failures", service, day), b"".join(line(one.record()) for one in failures))

    def append_shadows(self, service: str, day: date, shadows: Sequence[Shadowed]) -> None:
        """Add what a version would have answered to rows asked on this local day.

        Raises:
            StateError: the disk refused; nothing of the batch is in the log.
        """
        with self._lock:
            self._write(self._file("shadow", service, day), b"".join(line(one.record()) for one in shadows))

    def append_labels(self, service: str, day: date, truths: Sequence[Truth]) -> None:
        """Add truths that became known on this local day, all in one write.

        Raises:
            StateError: the disk refused; nothing of the batch is in the log.
        """
        with self._lock:
            lines = (line({"id": t.prediction_id, "value": t.value, "known_at": iso(t.known_at)}) for t in truths)
            self._write(self._file("labels", service, day), b"".join(lines))

    def _file(self, stream: Stream, service: str, day: date) -> "_File":
        key = (stream, service, day)
        if key not in self._files:
            self._files[key] = _create(self.folder / stream / service / day.isoformat())
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_synced, name="prediction-log-sync", daemon=True)
            self._thread.start()
        return self._files[key]

    def _write(self, file: "_File", batch: bytes) -> None:
        if self._broken is not None:
            raise StateError(
                f"the prediction log {self.folder} could not be made durable ({self._broken}); "
                f"check the disk and restart the service"
            ) from self._broken
        try:
            done = 0
            while done < len(batch):
                done += os.write(file.descriptor, batch[done:])
        except OSError as error:
            os.ftruncate(file.descriptor, file.size)  # half a batch must not stand before the next one
            raise StateError(
                f"cannot write the prediction log {file.path} ({error}); nothing of this batch was logged: "
                f"free space on its disk and send it again"
            ) from error
        file.size += len(batch)
        file.dirty = True

    def _keep_synced(self) -> None:
        while not self._stop.wait(self._every.total_seconds()):
            self.sync()

    def sync(self) -> None:
        """Wait until everything appended so far is on the disk; closes files not needed any more."""
        with self._sync_lock:
            with self._lock:
                dirty = [file for file in self._files.values() if file.dirty]
                for file in dirty:
                    file.dirty = False
            try:
                for file in dirty:
                    os.fdatasync(file.descriptor)
            except OSError as error:
                self._broken = error
            with self._lock:
                for key in list(self._files)[:-_OPEN_FILES]:
                    if not self._files[key].dirty:
                        os.close(self._files.pop(key).descriptor)

    def close(self) -> None:
        """Sync, and end the writer; reading goes on working."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.sync()
        with self._sync_lock, self._lock:
            for file in self._files.values():
                os.close(file.descriptor)
            self._files.clear()
            self._thread = None
            self._stop.clear()

    def days(self, stream: Stream, service: str) -> list[date]:
        """The local days that hold files, in order."""
        root = self.folder / stream / service
        return sorted(date.fromisoformat(entry.name) for entry in root.iterdir()) if root.is_dir() else []

    def predictions(self, service: str, *, first: date | None = None, last: date | None = None) -> pl.DataFrame:
        """Distinct answers asked on the days in [first, last]; columns of ``PREDICTION_COLUMNS``, oldest first."""
        return self.read_predictions(service, first=first, last=last).frame

    def find(self, service: str, prediction_id: str) -> pl.DataFrame:
        """The answer under this id, whenever it was asked (of doubles the one answered first), or no row.

        Raises:
            HomeDamaged: as ``read_predictions``, of a file that may hold it.
        """
        wanted = json.dumps(prediction_id).encode()  # as it stands in a record
        files = (path for path in self._paths("predictions", service, None, None) if wanted in path.read_bytes())
        return self._read(service, files).frame.filter(pl.col("prediction_id") == prediction_id)

    def labels(self, service: str, *, first: date | None = None, last: date | None = None) -> pl.DataFrame:
        """Distinct truths known on the days in [first, last]; columns of ``LABEL_COLUMNS``, oldest first."""
        return self.read_labels(service, first=first, last=last).frame

    def read_predictions(self, service: str, *, first: date | None = None, last: date | None = None) -> Reading:
        """As ``predictions``, and what was dropped; of doubles the one answered first stays.

        Raises:
            HomeDamaged: a line that is not a file's last fails its checksum; names file and line.
        """
        return self._read(service, self._paths("predictions", service, first, last))

    def _read(self, service: str, files: Iterable[Path]) -> Reading:
        rows: list[tuple[Any, ...]] = []
        torn = 0
        for path in files:
            names: dict[str, list[str]] = {}
            lines = _Lines(path)
            for record in lines:
                if "names_id" in record:
                    names[record["names_id"]] = record["names"]
                else:
                    rows.append(_prediction_row(service, record, names))
            torn += lines.torn
        return _distinct(rows, PREDICTION_COLUMNS, "answered_at", torn)

    def read_labels(self, service: str, *, first: date | None = None, last: date | None = None) -> Reading:
        """As ``labels``, and what was dropped; of doubles the one known first stays.

        Raises:
            HomeDamaged: a line that is not a file's last fails its checksum; names file and line.
        """
        rows: list[tuple[Any, ...]] = []
        torn = 0
        for path in self._paths("labels", service, first, last):
            lines = _Lines(path)
            rows.extend((record["id"], service, record["value"], record["known_at"]) for record in lines)
            torn += lines.torn
        return _distinct(rows, LABEL_COLUMNS, "known_at", torn)

    def ids(self, service: str, day: date, stream: Stream = "predictions") -> set[str]:
        """Which predictions were answered (or whose labels arrived) on this local day."""
        return set().union(*(ids_of(path) for path in self._paths(stream, service, day, day)))

    def _paths(self, stream: Stream, service: str, first: date | None, last: date | None) -> list[Path]:
        days = [d for d in self.days(stream, service) if (first is None or d >= first) and (last is None or d <= last)]
        root = self.folder / stream / service
        return [path for day in days for path in sorted((root / day.isoformat()).glob("*.log"))]


def ids_of(path: Path) -> set[str]:
    """The ids of the predictions that one file of the log is about.

    Raises:
        HomeDamaged: a line that is not the last fails its checksum.
    """
    return {record["id"] for record in _Lines(path) if "id" in record}


def named_features(predictions: pl.DataFrame) -> pl.DataFrame:
    """``prediction_id`` and one Float64 column a served feature; null where a row's model had no such feature."""
    if predictions.is_empty():
        return predictions.select("prediction_id")
    parts = [
        part.select("prediction_id", pl.col("features").list.to_struct(fields=list(names)).struct.unnest())
        for (names,), part in predictions.group_by(["feature_names"], maintain_order=True)
    ]
    return pl.concat(parts, how="diagonal")


@dataclass
class _File:
    """A file being written, and which lists of feature names it already holds."""

    path: Path
    descriptor: int
    names: set[str]
    size: int = 0
    dirty: bool = False


def _create(folder: Path) -> _File:
    """A new file of this process: never one of an earlier process with the same id, whose last line may be torn."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        path = folder / f"{os.getpid()}-{number}.log"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            number += 1
            continue
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # for as long as it is open, so that nobody lets the file go
        directory = os.open(folder, os.O_RDONLY)
        os.fsync(directory)  # a file whose name is lost with the power is lost whole
        os.close(directory)
        return _File(path=path, descriptor=descriptor, names=set())


class _Lines(Iterator[dict[str, Any]]):
    """The whole records of one file; ``torn`` is 1 after the last one if the file ends in a broken line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes()
        self._lines = content.split(b"\n")
        if self._lines[-1] == b"":
            self._lines.pop()
        self._next = 0
        self.torn = 0

    def __next__(self) -> dict[str, Any]:
        if self._next >= len(self._lines):
            raise StopIteration
        line = self._lines[self._next]
        self._next += 1
        body = line[9:]
        if line[:9] == b"%08x " % zlib.crc32(body):
            record: dict[str, Any] = json.loads(body)
            return record
        if self._next < len(self._lines):
            raise HomeDamaged(
                f"{self._path}, line {self._next}: the checksum does not fit, so the record was changed or the disk "
                f"lost it; restore the file, or delete this line to go on without the record"
            )
        self.torn = 1
        raise StopIteration


@lru_cache
def _names_id(names: tuple[str, ...]) -> str:
    return sha256("\n".join(names).encode()).hexdigest()[:16]


def _prediction_row(service: str, record: Mapping[str, Any], names: Mapping[str, list[str]]) -> tuple[Any, ...]:
    return (
        record["id"],
        service,
        record["model"],
        record["version"],
        record["probability"],
        record["asked_at"],
        record["as_of"],
        record["answered_at"],
        json.dumps(record["entities"], sort_keys=True),
        names[record["names"]],
        [None if value is None else float(value) for value in record["features"]],
        record.get("variant", "champion"),  # before there were rollouts
        float(record.get("chance", 1.0)),
        record.get("seconds"),
    )


def _distinct(rows: Iterable[tuple[Any, ...]], columns: Mapping[str, pl.DataType], order: str, torn: int) -> Reading:
    texts = {name: pl.String() if isinstance(dtype, pl.Datetime) else dtype for name, dtype in columns.items()}
    times = [name for name, dtype in columns.items() if isinstance(dtype, pl.Datetime)]
    frame = pl.DataFrame(list(rows), schema=texts, orient="row").with_columns(
        pl.col(times).str.to_datetime("%Y-%m-%dT%H:%M:%S%.6f%:z", time_unit="us", time_zone="UTC")
    )
    kept = frame.sort(order, maintain_order=True).unique("prediction_id", keep="first", maintain_order=True)
    return Reading(kept, frame.height - kept.height, torn)
