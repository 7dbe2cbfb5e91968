"""Applies the stream's events to the online features: at least once, which is enough, since a second time changes
nothing. What cannot be applied is set aside with its reason and holds nothing up."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import FrameType
from typing import Any

import msgspec

from ml_platform.resources.profiles import Profile
from ml_platform.serving.events import Ingestor, RowReader
from ml_platform.serving.garbage import settle
from ml_platform.serving.requests import plausible
from ml_platform.spec import DeclarationError, RequestRefused, StoreUnavailable, UnknownName
from ml_platform.stores.clock import Clock
from ml_platform.stores.event_stream import EventStream, Message
from ml_platform.stores.redis_settings import doubts

CLAIM_AFTER = timedelta(seconds=30)  # far longer than a batch takes; earlier only means that work is done twice
_AWAY_SECONDS = 0.5  # between two looks whether Redis is there again
_Aside = list[tuple[Message, str]]


@dataclass
class Counts:
    """What a consumer did, in rows; forgotten: those that hold what was forgotten, and are kept nowhere."""

    applied: int = 0
    aside: int = 0
    forgotten: int = 0


class Consumer:
    """One of the group's consumers; start as many as are wanted."""

    def __init__(
        self,
        ingestor: Ingestor,
        stream: EventStream,
        now: Callable[[], datetime],
        *,
        name: str,
        batch: int,
        claim_after: timedelta = CLAIM_AFTER,
    ) -> None:
        """``now``: the platform's present; rows from its future are not believed. ``name``: no other bears it."""
        self.ingestor, self.stream, self.now = ingestor, stream, now
        self.name, self.batch, self.claim_after = name, batch, claim_after
        self.counts = Counts()
        self._unfinished = True  # somebody of this name may have been killed
        self._claimed_at = -float("inf")

    def run(self, ended: threading.Event, told: Callable[[str], None]) -> None:
        """Work until ``ended`` is set; the batch in hand is finished. Redis may go and come back meanwhile.

        Raises:
            MissingHistory: a table that a rule refers to was never written; nothing is lost.
        """
        away = False
        while not ended.is_set():
            try:
                self.step()
                away = False
            except StoreUnavailable as error:
                self._unfinished = True
                if not away:
                    told(str(error))
                away = True
                ended.wait(_AWAY_SECONDS)
        if not away:
            self.stream.leave(self.name)

    def step(self) -> int:
        """Take one batch, apply it, and only then take it out of the stream; returns its rows.

        Raises:
            StoreUnavailable: Redis is away; the batch is delivered again.
            MissingHistory: see ``run``.
        """
        messages = self._next()
        if not messages:
            return 0
        forgotten = self.counts.forgotten
        by_table: dict[str, list[Message]] = {}
        for message in messages:
            by_table.setdefault(message.table, []).append(message)
        aside = [bad for name, some in by_table.items() for bad in self._apply(name, some)]
        left = {message.id for message, _ in aside}
        self.stream.finish([message for message in messages if message.id not in left], aside)
        self.counts.applied += len(messages) - len(aside) - (self.counts.forgotten - forgotten)
        self.counts.aside += len(aside)
        return len(messages)

    def _next(self) -> list[Message]:
        if self._unfinished:
            found = self.stream.taken(self.name, self.batch)
            self._unfinished = bool(found)
            if found:
                return found
        if time.monotonic() - self._claimed_at > self.claim_after.total_seconds() / 2:
            found = self.stream.claim(self.name, self.batch, self.claim_after)
            if found:
                return found  # there may be more
            self._claimed_at = time.monotonic()
        return self.stream.take(self.name, self.batch)

    def _apply(self, name: str, messages: Sequence[Message]) -> _Aside:
        """Apply messages of one table; returns those that could not be, with the reasons."""
        try:
            table = self.ingestor.table(name)
        except UnknownName as error:
            return [(message, str(error)) for message in messages]
        project = self.ingestor.project
        reader = RowReader(table, plausible(project.starts, project.timezone, self.now()))
        aside: _Aside = []
        kept: list[tuple[Message, dict[str, Any]]] = []
        for message in messages:
            try:
                kept.append((message, reader.read(json_row(message.row, name), name)))
            except RequestRefused as error:
                aside.append((message, str(error)))
        found = self.ingestor.apply(name, reader.frame([row for _, row in kept])) if kept else []
        # What was forgotten is done with: among the dead letters it would be kept.
        self.counts.forgotten += sum(bad.forgotten for bad in found)
        return aside + [(kept[bad.row][0], f"{name}: {bad.reason}") for bad in found if not bad.forgotten]


def json_row(text: bytes, where: str) -> Mapping[str, Any]:
    """One JSON object.

    Raises:
        RequestRefused: it is none.
    """
    try:
        row = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused(f"{where}: is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise RequestRefused(f"{where}: is no JSON object, but {text[:40].decode(errors='replace')!r}")
    return row


def event_stream(profile: Profile, project: str) -> EventStream:
    """The stream of the profile.

    Raises:
        DeclarationError: it has none.
    """
    if profile.redis_url is None:
        raise DeclarationError(
            f"the profile {profile.name} has no stream of events; `ml-platform ingest` applies them directly, and the "
            f"production profile has a stream: set ML_PLATFORM_PROFILE=production and ML_PLATFORM_REDIS_URL"
        )
    return EventStream(profile.redis_url, project)


def consume(profile: Profile, batch: int, *, told: Callable[[str], None], claim_after: timedelta = CLAIM_AFTER) -> None:
    """Apply the stream's events until SIGTERM or Ctrl-C; the batch in hand is finished.

    Raises:
        DeclarationError: the profile has no stream.
        MissingHistory: a table that a rule refers to was never written.
    """
    ingestor = Ingestor.open(profile)
    stream = event_stream(profile, ingestor.project.name)
    name = f"{socket.gethostname()}-{os.getpid()}"
    consumer = Consumer(
        ingestor, stream, Clock(profile.clock_path).now, name=name, batch=batch, claim_after=claim_after
    )
    settle()
    with _told_to_end() as ended:
        told(f"consumer {name} reads {stream.stream}, at most {batch} events at once; Ctrl-C or SIGTERM ends it")
        for doubt in doubts(profile.redis_url) if profile.redis_url else ():
            told(doubt)
        consumer.run(ended, told)
    counts = consumer.counts
    forgotten = f", {counts.forgotten} left out because they hold what was forgotten" if counts.forgotten else ""
    told(f"{counts.applied} events applied, {counts.aside} set aside in {stream.dead}{forgotten}")


@contextmanager
def _told_to_end() -> Iterator[threading.Event]:
    """Set by SIGTERM and Ctrl-C instead of what they do otherwise."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
