"""Rows of a table from lines of JSON, into the live features or onto the stream."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ml_platform.resources.profiles import Profile
from ml_platform.serving.consumer import event_stream, json_row
from ml_platform.serving.events import Ingestor, RowReader, SetAside
from ml_platform.serving.requests import plausible
from ml_platform.spec import RequestRefused
from ml_platform.stores.clock import Clock


@dataclass
class Fed:
    """What became of the lines.

    done: what was done with the good rows (``applied``, or ``sent`` to the stream). refused: rows that are none of the
    table's. aside: rows that break its contract.
    """

    table: str
    done: str
    good: int = 0
    refused: int = 0
    aside: int = 0

    @property
    def left_out(self) -> int:
        """Rows that do not count."""
        return self.refused + self.aside

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        return f"{self.table}: {self.good} {self.done}, {self.aside} set aside, {self.refused} refused"


@dataclass(frozen=True)
class _Line:
    number: int
    text: bytes
    row: dict[str, Any]


def feed(profile: Profile, table: str, lines: Iterable[bytes], batch: int, *, told: Callable[[str], None]) -> Fed:
    """Apply the lines' rows, ``batch`` at once; ``told`` hears of each that is left out, with line, column and reason.

    Raises:
        UnknownName: no such table of events.
        StoreUnavailable: Redis is away; feeding the same lines again changes nothing.
        MissingHistory: a table that a rule refers to was never written.
    """
    ingestor = Ingestor.open(profile)
    declared, project = ingestor.table(table), ingestor.project
    reader = RowReader(declared, plausible(project.starts, project.timezone, Clock(profile.clock_path).now()))
    stream = event_stream(profile, project.name) if profile.redis_url else None
    fed = Fed(table, "sent to the stream" if stream else "applied")

    def left_out(reason: str) -> None:
        fed.refused += 1
        told(reason)

    good = _read(reader, lines, left_out)
    while some := list(islice(good, batch)):
        bad: list[SetAside] = []
        if stream:
            stream.send(table, [line.text for line in some])  # the consumer judges them
        else:
            bad = ingestor.apply(table, reader.frame([line.row for line in some]))
        for one in bad:
            told(f"line {some[one.row].number}: set aside, {one.reason}")
        fed.good += len(some) - len(bad)
        fed.aside += len(bad)
    return fed


def _read(reader: RowReader, lines: Iterable[bytes], left_out: Callable[[str], None]) -> Iterator[_Line]:
    for number, text in enumerate(map(bytes.strip, lines), 1):
        if not text:
            continue
        try:
            yield _Line(number, text, reader.read(json_row(text, f"line {number}"), f"line {number}"))
        except RequestRefused as error:
            left_out(f"{error}: refused")
