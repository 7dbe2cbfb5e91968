"""A connection to one Redis server that sends commands already packed and reads their replies with hiredis.

A client library spends more on wrapping a command than Redis on answering it; here a read is one write and one or two
reads of a socket.
"""

import os
import socket
import ssl
import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import hiredis

from ml_platform.spec import DeclarationError, StoreUnavailable

_PORT = 6379  # Redis's own
_RECEIVED_AT_ONCE = 1 << 16
_AHEAD = 8  # commands on their way, so that Redis never waits for the next; the publisher's are about 12 KB each


def packed(*command: str | int | bytes) -> bytes:
    """A command as Redis reads it."""
    found: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means a tuple of one
    return found


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
        self._tls = parts.scheme == "rediss"
        self._login = [unquote(part) for part in (parts.username, parts.password) if part]
        self._patience = patience.total_seconds()
        self._local = threading.local()

    @property
    def place(self) -> str:
        """Where it is, for sentences; without the password."""
        return f"Redis at {self.host}:{self.port}, database {self.database}"

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
            self._lost(error)

    def stream(self, commands: Iterable[bytes]) -> list[Any]:
        """The replies to a series of commands, one each; the next is made while Redis works on those before.

        Raises:
            StoreUnavailable: it cannot be reached, or refuses a command; others may have been done.
        """
        replies: list[Any] = []
        connection = self._standing()
        try:
            connection = connection or self._connect()
            sent = 0
            for command in commands:
                connection.send(command)
                sent += 1
                if sent - len(replies) > _AHEAD:
                    replies += self._checked(connection, connection.receive(1))
            replies += self._checked(connection, connection.receive(sent - len(replies)))
        except OSError as error:
            self._lost(error)
        except BaseException:
            if connection is not None:
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
        connection = _Connection(self.host, self.port, self._patience, self._tls)
        hello = [("AUTH", *self._login)] if self._login else []
        hello += [("SELECT", str(self.database))] if self.database else []
        if hello:
            self._checked(connection, connection.exchange(b"".join(packed(*command) for command in hello), len(hello)))
        self._local.connection = connection
        return connection

    def _checked(self, connection: "_Connection", replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                connection.close()
                raise StoreUnavailable(f"{self.place} refuses: {reply}; mend what it says there, and try again")
        return replies

    def _lost(self, error: OSError) -> NoReturn:
        raise StoreUnavailable(
            f"{self.place} cannot be reached ({error or type(error).__name__}); start it or correct "
            "ML_PLATFORM_REDIS_URL: the next call connects anew"
        ) from error


class _Connection:
    """One socket and the parser of what comes out of it; closed by any failure, as replies would be out of step."""

    def __init__(self, host: str, port: int, patience: float, tls: bool) -> None:
        self.pid = os.getpid()
        self.closed = False
        self._socket = socket.create_connection((host, port), timeout=patience)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
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
        except BaseException:
            self.close()
            raise
        return replies

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        self._socket.close()
