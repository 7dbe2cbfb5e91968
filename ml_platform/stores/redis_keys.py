"""Walking over the keys of a Redis server, and making it write anew what it keeps on its disk."""

import time
from collections.abc import Iterator
from datetime import timedelta

from ml_platform.spec import StoreUnavailable
from ml_platform.stores.redis_wire import RedisWire, packed

PATIENCE = timedelta(seconds=30)  # for each answer: here nobody waits for features
_AT_ONCE = 1000
_LOOK_SECONDS = 0.1
_WRITTEN_WITHIN_SECONDS = 300  # a server with so much to write is looked at by a person


def literally(text: str) -> bytes:
    """A text as part of a pattern, in which it means itself."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^-" else bytes([byte]) for byte in text.encode())


def keys_like(wire: RedisWire, pattern: bytes) -> Iterator[bytes]:
    """Every key that fits the pattern, each once.

    Raises:
        StoreUnavailable: Redis is away.
    """
    cursor, seen = b"0", set[bytes]()
    while True:
        ((cursor, keys),) = wire.ask(packed("SCAN", cursor, "MATCH", pattern, "COUNT", _AT_ONCE), 1)
        yield from (key for key in keys if key not in seen)
        seen.update(keys)
        if cursor == b"0":
            return


def rewrite_disk(wire: RedisWire) -> str | None:
    """Let the server write its append-only file and its snapshot anew, so that they do not hold what was removed.

    Returns why it could not be made to, or None.
    """
    try:
        settings = dict(zip(*[iter(wire.ask(packed("CONFIG", "GET", "appendonly", "save"), 1)[0])] * 2, strict=True))
        if settings.get(b"appendonly") == b"yes":
            wire.ask(packed("BGREWRITEAOF"), 1)
        if settings.get(b"save"):
            wire.ask(packed("SAVE"), 1)
        _await_rewrite(wire)
    except StoreUnavailable as error:
        return f"what {wire.place} keeps on its disk was not written anew ({error.__cause__ or error})"
    return None


def _await_rewrite(wire: RedisWire) -> None:
    deadline = time.monotonic() + _WRITTEN_WITHIN_SECONDS
    while True:
        told = wire.ask(packed("INFO", "persistence"), 1)[0]
        if b"aof_rewrite_in_progress:0" in told and b"aof_rewrite_scheduled:0" in told:
            return
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"{wire.place} has not written its file anew after {_WRITTEN_WITHIN_SECONDS} s")
        time.sleep(_LOOK_SECONDS)
