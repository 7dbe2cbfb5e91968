"""What no client of Redis can do without: bytes made beforehand go out, the answer's bytes come in, none is looked at.

Feast's layout fixes the commands: a hash an entity, of which some fields are wanted or all are taken.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

import hiredis

from ml_platform.bench.features_online_arms import Rows
from ml_platform.spec import FeatureView
from ml_platform.stores.feast_bytes import entity_key_encoder, hash_field, moment_field
from ml_platform.stores.redis_wire import packed

_AT_ONCE = 1 << 20


class Floor:
    """A plain blocking socket to the server, and the questions of a benchmark packed for it."""

    def __init__(self, url: str, project: str, views: Sequence[FeatureView]) -> None:
        """``url``: ``redis://host:port/database``, where ``project`` has these views."""
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_AT_ONCE)
        self._suffix = project.encode()
        self._fields: dict[str, list[bytes]] = {}
        for view in views:
            fields = self._fields.setdefault(view.entity_names[0], [])
            fields += [*(hash_field(view.name, name) for name in view.schema()), moment_field(view.name)]
        self._exchange(packed("SELECT", parts.path.strip("/")), 1)

    def arms(self, asked: Sequence[Rows]) -> dict[str, Callable[[Rows], object]]:
        """Arms that answer these questions, each once and in this order."""
        return {
            "floor: a round trip (PING)": self._arm([packed("PING")] * len(asked), 1),
            "floor: bytes of HMGET": self._arm([*self._named(asked)], len(asked[0]) * len(self._fields)),
            "floor: bytes of HGETALL": self._arm([*self._whole(asked)], len(asked[0]) * len(self._fields)),
        }

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _named(self, asked: Sequence[Rows]) -> Iterator[bytes]:
        for rows in asked:
            keys = self._keys(rows)
            yield b"".join(packed("HMGET", key, *self._fields[entity]) for entity, key in keys)

    def _whole(self, asked: Sequence[Rows]) -> Iterator[bytes]:
        for rows in asked:
            yield b"".join(packed("HGETALL", key) for _, key in self._keys(rows))

    def _keys(self, rows: Rows) -> Iterator[tuple[str, bytes]]:
        for entity in self._fields:
            encode = entity_key_encoder((entity,))
            for row in rows:
                yield entity, encode((row[entity],)) + self._suffix

    def _arm(self, questions: Sequence[bytes], count: int) -> Callable[[Rows], object]:
        sized = iter([(question, self._exchange(question, count)) for question in questions])
        send, take, into = self._socket.sendall, self._socket.recv_into, self._buffer

        def answer(_: Rows) -> None:
            question, left = next(sized)
            send(question)
            while left > 0:
                left -= take(into)

        return answer

    def _exchange(self, question: bytes, count: int) -> int:
        """How many bytes the ``count`` answers have."""
        reader, size = hiredis.Reader(), 0
        self._socket.sendall(question)
        while count:
            if reader.gets() is not False:
                count -= 1
                continue
            received = self._socket.recv(_AT_ONCE)
            reader.feed(received)
            size += len(received)
        return size
