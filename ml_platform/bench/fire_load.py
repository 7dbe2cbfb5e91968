"""Callers that ask one after the other over kept connections, and remember what became of each question.

Each question has an id of its own and is sent once: a question without an answer is never asked again, so whatever
stands in the log twice was doubled by the service.
"""

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ml_platform.bench.serving_world import ENTITIES

_RENEW = 40  # requests over one connection, so that workers that came later are asked, too
_TIMEOUT_SECONDS = 60
_AGAIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One question that was answered 200: when it was sent (monotonic) and how long it took, seconds."""

    name: str
    user: int
    version: str
    probability: float
    sent: float
    took: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """One that was not: why, and when it was sent."""

    name: str
    reason: str
    sent: float


@dataclass
class Callers:
    """So many at once, each with a pause (seconds) after every answer; a thread of their own asks.

    closed: connections that the service had closed before a question was sent over them, which is its right.
    refused: connections that could not be opened.
    """

    port: int
    connections: int = 16
    pause: float = 0.01
    prefix: str = "q"
    answers: list[Answer] = field(default_factory=list)
    failed: list[Unanswered] = field(default_factory=list)
    closed: int = 0
    refused: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Callers":
        """They begin to ask."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="callers", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Each waits for its last answer."""
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def since(self, moment: float) -> list[Answer]:
        """The answers to what was sent from a moment on (monotonic)."""
        found = []
        for answer in reversed([*self.answers]):
            if answer.sent >= moment:
                found.append(answer)
            elif answer.sent + _TIMEOUT_SECONDS < moment:
                break
        return found

    async def _all(self) -> None:
        await asyncio.gather(*(self._one(number) for number in range(self.connections)))

    async def _one(self, caller: int) -> None:
        chance, number, left = random.Random(caller), 0, 0
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while not self._stop.is_set():
            if reader is not None and reader.at_eof():
                self.closed += 1
            if writer is None or left == 0 or (reader is not None and reader.at_eof()):
                if writer is not None:
                    writer.close()
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    self.refused += 1
                    reader = writer = None
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
                left = _RENEW
            assert reader is not None
            number += 1
            left -= 1
            name, user = f"{self.prefix}{caller}-{number}", chance.randrange(ENTITIES)
            if not await self._ask(reader, writer, name, user):
                left = 0
            await asyncio.sleep(self.pause)
        if writer is not None:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, user: int) -> bool:
        """Whether the connection may be used again."""
        body = json.dumps({"rows": [{"ask": name, "user": user}]}).encode()
        head = b"POST /predict HTTP/1.1\r\nhost: drill\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        sent = time.monotonic()
        try:
            writer.write(head % len(body) + body)
            status, last, content = await asyncio.wait_for(read_answer(reader), _TIMEOUT_SECONDS)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.failed.append(Unanswered(name=name, reason=f"{type(error).__name__}: {error}", sent=sent))
            return False
        if status != 200:
            self.failed.append(Unanswered(name=name, reason=f"{status}: {content[:300]!r}", sent=sent))
            return not last
        found = json.loads(content)
        (row,) = found["predictions"]
        if row["prediction_id"] != name:
            self.failed.append(Unanswered(name=name, reason=f"another's answer: {content!r}", sent=sent))
            return False
        version = row.get("model_version", found["model_version"])
        took = time.monotonic() - sent
        self.answers.append(
            Answer(name=name, user=user, version=version, probability=row["probability"], sent=sent, took=took)
        )
        return not last


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Status, whether the connection is closed after it, and the body, whose length is said.

    Raises:
        IncompleteReadError: the connection ended before.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers.get("connection") == "close", body


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
