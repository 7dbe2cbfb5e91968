"""A connection to one Redis server that sends commands already packed and reads their replies with hiredis.

A client library spends more on wrapping a command than Redis on answering it; here a read is one write and one or two
reads of a socket.
"""

import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from hashlib import sha1
from itertools import chain
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import hiredis

from ml_platform.spec import DeclarationError, StoreUnavailable

Word = bytes | str | int
_PORT = 6379  # Redis's own
_RECEIVED_AT_ONCE = 1 << 16
_AHEAD = 8  # commands on their way, so that Redis never waits for the next; they are about 12 KB each


def packed(*command: Word) -> bytes:
    """A command as Redis reads it."""
    found: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its hints mean a tuple of one
    return found


def called(script: str, keys: Sequence[Word], words: Sequence[Word]) -> bytes:
    """A call of a script, to be sent by ``RedisWire.stream`` with it; it runs whole or not at all."""
    return packed("EVALSHA", sha_of(script), len(keys), *keys, *words)


@lru_cache
def sha_of(script: str) -> str:
    """The name by which Redis keeps a script."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


def bulk(argument: bytes) -> bytes:
    """One argument of a command as Redis reads it."""
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


class RedisWire:
    """Connections to one server, one a thread and process, made when first needed and again when lost."""

    def __init__(self, url: str, patience: timedelta) -> None:
        """``url``: ``redis[s]://[[user]:password@]host[:port][/database]``; ``patience``: for each step on the network.

        Raises:
            DeclarationError: the URL is of another form.
        """
        parts = urlsplit(url)
        database = parts.path.strip("/") or "0"
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or not database.isdecimal():
            raise DeclarationError(
                f"the address of Redis ends with {url.rpartition('@')[2]!r}; write "
                "redis://user:password@host:port/database, or rediss:// for TLS"
            )
        self.host, self.port, self.database = parts.hostname, parts.port or _PORT, int(database)
        self.tls = parts.scheme == "rediss"
        self._login = [unquote(part) for part in (parts.username, parts.password) if part]
        self.patience = patience.total_seconds()
        self._local = threading.local()
        self._made_of = (url, patience)

    def __reduce__(self) -> tuple[type["RedisWire"], tuple[str, timedelta]]:
        """Connections stay in their process."""
        return RedisWire, self._made_of

    @property
    def place(self) -> str:
        """Where it is, for sentences; without the password."""
        return f"Redis at {self.host}:{self.port}, database {self.database}"

    @property
    def hello(self) -> list[tuple[str, ...]]:
        """The commands with which a connection begins."""
        login: list[tuple[str, ...]] = [("AUTH", *self._login)] if self._login else []
        return login + ([("SELECT", str(self.database))] if self.database else [])

    def ask(self, commands: bytes, count: int) -> list[Any]:
        """The replies to ``count`` commands: bytes, numbers, lists of them and None.

        If the connection was lost since it was last used they are sent again, once: so only what may be done twice.

        Raises:
            StoreUnavailable: it cannot be reached, or refuses a command.
        """
        connection = self._standing()
        try:
            if connection is not None:
                try:
                    return self._checked(connection, connection.exchange(commands, count))
                except (ConnectionError, ssl.SSLError):
                    pass  # closed while it lay idle: Redis was started again, or does not keep idle ones
            connection = self._connect()
            return self._checked(connection, connection.exchange(commands, count))
        except OSError as error:
            self.lost(error)

    def stream(self, commands: Iterable[bytes], script: str | None = None) -> list[Any]:
        """The replies to a series of commands, one each; the next is made while Redis works on those before.

        If the connection was lost since it was last used they are sent again, once: so only what may be done twice.
        script: what the commands call; Redis is told it once a connection, and again if it was made to forget it.

        Raises:
            StoreUnavailable: it cannot be reached, or refuses a command; others may have been done.
        """
        made: list[bytes] = []
        replies: list[Any] = []
        left = iter(commands)
        connection = self._standing()
        try:
            if connection is not None:
                try:
                    return self._streamed(connection, made, left, replies, script)
                except (ConnectionError, ssl.SSLError):
                    if replies:  # it was not idle: some were done, and are not kept here
                        raise
                except StoreUnavailable as error:
                    if replies or not str(error.__cause__).startswith("NOSCRIPT"):
                        raise
            return self._streamed(self._connect(), made, left, replies, script)
        except OSError as error:
            self.lost(error)

    def _streamed(
        self,
        connection: "_Connection",
        made: list[bytes],
        left: Iterator[bytes],
        replies: list[Any],
        script: str | None,
    ) -> list[Any]:
        """``made``: commands that were sent before, in vain; ``left`` joins them until the first reply is there."""
        sent = 0
        try:
            if script is not None and sha_of(script) not in connection.scripts:
                self._checked(connection, connection.exchange(packed("SCRIPT", "LOAD", script), 1))
                connection.scripts.add(sha_of(script))
            for command in chain(tuple(made), left):
                if sent >= len(made) and not replies:
                    made.append(command)
                connection.send(command)
                sent += 1
                if sent - len(replies) > _AHEAD:
                    replies += self._checked(connection, connection.receive(1))
            replies += self._checked(connection, connection.receive(sent - len(replies)))
        except BaseException:
            connection.close()  # replies are still to come, and would be taken for those of the next call
            raise
        return replies

    def close(self) -> None:
        """End this thread's connection; the next call makes a new one."""
        connection = self._standing()
        if connection is not None:
            connection.close()

    def _standing(self) -> "_Connection | None":
        connection: _Connection | None = getattr(self._local, "connection", None)
        # After a fork both processes would read from the same socket.
        return connection if connection and connection.pid == os.getpid() and not connection.closed else None

    def _connect(self) -> "_Connection":
        connection = _Connection(self.host, self.port, self.patience, self.tls)
        hello = self.hello
        if hello:
            self._checked(connection, connection.exchange(b"".join(packed(*command) for command in hello), len(hello)))
        self._local.connection = connection
        return connection

    def _checked(self, connection: "_Connection", replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                connection.close()
                self.refused(reply)
        return replies

    def refused(self, reply: hiredis.ReplyError) -> NoReturn:
        """Say so of an answer that is an error."""
        raise StoreUnavailable(f"{self.place} refuses: {reply}; mend what it says there, and try again") from reply

    def lost(self, error: OSError) -> NoReturn:
        """Say so of a connection that broke or took too long."""
        raise StoreUnavailable(
            f"{self.place} cannot be reached ({error or type(error).__name__}); start it or correct "
            "ML_PLATFORM_REDIS_URL: the next call connects anew"
        ) from error


class _Connection:
    """One socket and the parser of what comes out of it; closed by any failure, as replies would be out of step."""

    def __init__(self, host: str, port: int, patience: float, tls: bool) -> None:
        self.pid = os.getpid()
        self.closed = False
        self.scripts: set[str] = set()  # those that Redis was told here
        self._socket = socket.create_connection((host, port), timeout=patience)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
            else:
                _leave_waiting_to_the_kernel(self._socket, patience)
        except BaseException:
            self._socket.close()
            raise
        self._reader = hiredis.Reader()
        self._buffer = bytearray(_RECEIVED_AT_ONCE)

    def exchange(self, commands: bytes, count: int) -> list[Any]:
        """Send, and wait for that many replies."""
        self.send(commands)
        return self.receive(count)

    def send(self, commands: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: the connection broke or took too long; it is closed now.
        """
        try:
            self._socket.sendall(commands)
        except BlockingIOError as error:
            self.close()
            raise TimeoutError("timed out") from error
        except BaseException:
            self.close()
            raise

    def receive(self, count: int) -> list[Any]:
        """Wait for that many replies.

        Raises:
            OSError: the connection broke or took too long, or this is no Redis; it is closed now.
        """
        replies: list[Any] = []
        take, into, reader = self._socket.recv_into, self._buffer, self._reader
        try:
            while len(replies) < count:
                reply = reader.gets()
                if reply is not False:
                    replies.append(reply)
                    continue
                size = take(into)
                if not size:
                    raise ConnectionResetError("the other side closed the connection")
                reader.feed(into, 0, size)  # type: ignore[arg-type]
        except hiredis.ProtocolError as error:
            self.close()
            raise ConnectionError(f"what answers there is no Redis: {error}") from error
        except BlockingIOError as error:
            self.close()
            raise TimeoutError("timed out") from error
        except BaseException:
            self.close()
            raise
        return replies

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        self._socket.close()


def _leave_waiting_to_the_kernel(connected: socket.socket, seconds: float) -> None:
    """Python asks ``poll`` before each send and receive of a socket with a timeout; the kernel's needs no such call."""
    whole, rest = divmod(seconds, 1)
    patience = struct.pack("@ll", int(whole), int(rest * 1_000_000))  # a timeval
    for which in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connected.setsockopt(socket.SOL_SOCKET, which, patience)
    connected.settimeout(None)
