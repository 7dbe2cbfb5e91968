"""The places that can hold an entity, one class a kind: what they hold of it, and how it is taken out.

Every ``purge`` may be repeated, and after a kill at any moment doing all of them again ends the work. What others are
found by (the predictions about an entity, the rows that were predicted) is therefore taken out last.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

from ml_platform.forgetting.subject import RAW, Subject
from ml_platform.stores.delta import Lake
from ml_platform.stores.delta_purge import look, purge, table_names
from ml_platform.stores.online_purge import OnlinePurge
from ml_platform.stores.prediction_log import Stream
from ml_platform.stores.prediction_log_purge import purge as purge_log
from ml_platform.stores.prediction_log_purge import records, services

_SOURCES = ("predictions", *RAW)  # by these tables the predictions about an entity are found: they go last
BESIDE_ANSWERS: tuple[Stream, ...] = ("labels", "failures", "shadow")
PREDICTIONS: Stream = "predictions"


@dataclass(frozen=True, kw_only=True)
class Held:
    """So many things of a kind that hold the entity in one place."""

    place: str
    count: int
    what: str
    note: str = ""

    def __str__(self) -> str:
        """One line, in the singular where there is one."""
        first, _, others = self.what.partition(" ")
        if self.count == 1:
            first = f"{first[:-3]}y" if first.endswith("ies") else first.removesuffix("s")
        note = f" ({self.note})" if self.note else ""
        return f"{self.place}: {self.count:,} {f'{first} {others}'.strip()}{note}"


class Place(Protocol):
    """One kind of place; ``title``: what its removal is called while it goes on."""

    title: ClassVar[str]

    def held(self) -> Iterator[Held]:
        """What it holds; changes nothing."""
        ...

    def purge(self) -> None:
        """Take it out."""
        ...


@dataclass(frozen=True)
class Tables:
    """Tables of the lake, newest version and all that are left of earlier ones.

    last: those by which the predictions are found, or else all others. begun: what a forgetting that was cut off was
    to purge, whether or not anything is found there now.
    """

    title: ClassVar[str] = "tables"
    lake: Lake
    subject: Subject
    last: bool
    begun: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """The tables of this part, those by which others are found at the end."""
        kinds = {name: name.partition("/")[0] for name in table_names(self.lake)}
        own = [name for name, kind in kinds.items() if (kind in _SOURCES) == self.last]
        return sorted(own, key=lambda name: _SOURCES.index(kinds[name]) if self.last else 0)

    def held(self) -> Iterator[Held]:
        """See ``Place.held``."""
        for name in self.names():
            found = look(self.lake, name, self.subject.gone(name), self.subject.texts())
            if found.holds:
                notes = [f"and {found.old_files} files of earlier versions"] if found.old_files else []
                notes += [f"versions up to {found.version}"]
                yield Held(place=name, count=found.rows, what="rows", note=", ".join(notes))

    def purge(self) -> None:
        """See ``Place.purge``."""
        for name in self.names():
            gone = self.subject.gone(name)
            if name in self.begun or look(self.lake, name, gone, self.subject.texts()).holds:
                purge(self.lake, name, gone)


@dataclass(frozen=True)
class Logs:
    """One stream of the prediction log, of all services."""

    title: ClassVar[str] = "prediction log"
    folder: Path
    stream: Stream
    subject: Subject

    def held(self) -> Iterator[Held]:
        """See ``Place.held``."""
        for service in services(self.folder, self.stream):
            count = sum(self._chosen(service, record) for record in records(self.folder, self.stream, service))
            if count:
                yield Held(place=f"log/{self.stream}/{service}", count=count, what="entries")

    def purge(self) -> None:
        """See ``Place.purge``."""
        for service in services(self.folder, self.stream):
            purge_log(self.folder, self.stream, service, partial(self._chosen, service))

    def _chosen(self, service: str, record: Mapping[str, object]) -> bool:
        return str(record["id"]) in self.subject.predictions_of(service) or self.subject.asked_in(record)


@dataclass(frozen=True)
class OnlineKeys:
    """The newest values stored for the entity."""

    title: ClassVar[str] = "online store"
    store: OnlinePurge
    subject: Subject

    def held(self) -> Iterator[Held]:
        """See ``Place.held``."""
        count = self.store.holding(self.subject.entity.name, self.subject.entity.text)
        if count:
            yield Held(place="online store", count=count, what="keys")

    def purge(self) -> None:
        """See ``Place.purge``."""
        self.store.drop(self.subject.entity.name, self.subject.entity.text)
