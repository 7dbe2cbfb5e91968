"""A connection to Redis for an event loop: nobody waits in line, and nothing blocks while Redis is slow or away.

Each question is sent at once, behind those that are still unanswered; hiredis reads the answers as they come.
"""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import hiredis

from ml_platform.spec import StoreUnavailable
from ml_platform.stores.redis_wire import RedisWire, packed


@dataclass(slots=True)
class _Question:
    """So many replies are still to come, since when (monotonic seconds)."""

    future: asyncio.Future[list[Any]]
    count: int
    since: float
    replies: list[Any] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """One socket; closed by any failure, as replies would be out of step."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._reader = hiredis.Reader()
        self._questions: deque[_Question] = deque()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's is a Transport by its methods alone

    def ask(self, packet: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send; the future holds that many replies, or a ConnectionError or TimeoutError."""
        question = _Question(self._loop.create_future(), count, monotonic())
        assert self._transport is not None, "connected"
        self._questions.append(question)
        self._transport.write(packet)
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._look)
        return question.future

    def _look(self) -> None:
        """Give up if the oldest question waits for too long, else look again when it would."""
        self._timer = None
        if self._questions:
            left = self._questions[0].since + self._patience - monotonic()
            if left <= 0:
                self.close(TimeoutError("timed out"))
            else:
                self._timer = self._loop.call_later(left, self._look)

    def data_received(self, data: bytes) -> None:
        reader, questions = self._reader, self._questions
        try:
            reader.feed(data)
            while questions:
                question = questions[0]
                replies, count = question.replies, question.count
                while len(replies) < count:
                    reply = reader.gets()
                    if reply is False:
                        return
                    replies.append(reply)
                questions.popleft()
                if not question.future.done():  # who asked may have been cancelled
                    question.future.set_result(replies)
        except hiredis.ProtocolError as error:
            self.close(ConnectionError(f"what answers there is no Redis: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(ConnectionError(str(exc) if exc else "the other side closed the connection"))

    def close(self, error: OSError) -> None:
        """Fail what is unanswered, and end the connection without waiting for anybody."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._questions:
            future = self._questions.popleft().future
            if not future.done():
                future.set_exception(error)
        if self._transport is not None:
            self._transport.abort()


class RedisLine:
    """Asks one server from one event loop; made when first needed and again when lost."""

    def __init__(self, wire: RedisWire) -> None:
        """``wire``: where it is, and how long an answer may take."""
        self._wire = wire
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def ask(self, packet: bytes, count: int) -> list[Any]:
        """The replies to ``count`` commands: bytes, numbers, lists of them and None.

        If a standing connection breaks meanwhile they are sent again, once: so only what may be done twice.

        Raises:
            StoreUnavailable: it cannot be reached, does not answer in time, or refuses a command.
        """
        try:
            connection = self._connection
            if connection is not None and not connection.closed:
                try:
                    return self._checked(await connection.ask(packet, count))
                except ConnectionError:
                    pass  # Redis was started again, or does not keep idle connections
            connection = await self._connected()
            return self._checked(await connection.ask(packet, count))
        except OSError as error:  # TimeoutError is one, too
            self._wire.lost(error)

    async def _connected(self) -> _Connection:
        """A new connection, the same for all who ask meanwhile."""
        connection = self._connection
        if connection is not None and not connection.closed:
            return connection
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Connection:
        wire = self._wire
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context() if wire.tls else None
        async with asyncio.timeout(wire.patience):
            _, connection = await loop.create_connection(
                lambda: _Connection(wire.patience), wire.host, wire.port, ssl=context
            )
        hello = [packed(*command) for command in wire.hello]
        if hello:
            try:
                self._checked(await connection.ask(b"".join(hello), len(hello)))
            except StoreUnavailable:
                connection.close(ConnectionError("refused"))
                raise
        self._connection = connection
        return connection

    def close(self) -> None:
        """End the connection; the next question makes a new one."""
        if self._connection is not None:
            self._connection.close(ConnectionError("closed"))

    def _checked(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                self._wire.refused(reply)
        return replies
