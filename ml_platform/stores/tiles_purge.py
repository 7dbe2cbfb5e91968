"""Taking an entity's tiles, or all tiles of some logs, out of a store of live windows."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ml_platform.stores.feast_bytes import key_parts
from ml_platform.stores.redis_keys import PATIENCE, keys_like, literally
from ml_platform.stores.redis_wire import RedisWire, packed
from ml_platform.stores.sqlite_files import reading, removing


class TilePurge(Protocol):
    """What is taken out of a store of tiles; all of it may be repeated."""

    def holding(self, entity: str, text: str) -> int:
        """How many logs of an entity's tiles bear this value, alone or beside other entities."""
        ...

    def clear(self, logs: Iterable[str]) -> None:
        """Remove all tiles of these logs, whose windows must not be asked for until they are made anew."""
        ...


class SqliteTilePurge:
    """Of the embedded store."""

    def __init__(self, path: Path) -> None:
        """``path``: of ``SqliteTiles``."""
        self.path = path

    def holding(self, entity: str, text: str) -> int:
        """See ``TilePurge.holding``."""
        if not self.path.exists():
            return 0
        with reading(self.path) as db:
            keys = db.execute("SELECT DISTINCT log, entity FROM tiles").fetchall()
        return sum(_names(key, entity, text) for _, key in keys)

    def clear(self, logs: Iterable[str]) -> None:
        """See ``TilePurge.clear``; the file is written anew, so that no free page of it holds an event."""
        if not self.path.exists():
            return
        with removing(self.path) as db:
            db.executemany("DELETE FROM tiles WHERE log = ?", [(log,) for log in logs])


class RedisTilePurge:
    """Of production's store."""

    def __init__(self, url: str, project: str) -> None:
        """As ``RedisTiles``."""
        self._wire = RedisWire(url, PATIENCE)
        self._prefix = f"live:{project}:".encode()
        self._index = f"live:{project}"

    def holding(self, entity: str, text: str) -> int:
        """See ``TilePurge.holding``."""
        return sum(_names(key, entity, text) for _, _, key in self._hashes())

    def clear(self, logs: Iterable[str]) -> None:
        """See ``TilePurge.clear``."""
        wanted = {log.encode() for log in logs}
        for whole, log, _ in list(self._hashes()):
            if log in wanted:
                commands = (("DEL", whole), ("ZREM", self._index, whole))
                self._wire.ask(b"".join(packed(*command) for command in commands), len(commands))

    def _hashes(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Each hash's key, and of it the log and the entity."""
        for whole in keys_like(self._wire, literally(self._prefix.decode()) + b"*"):
            log, _, key = whole.removeprefix(self._prefix).partition(b":")
            yield whole, log, key


def tile_purge(redis_url: str | None, path: Path, project: str) -> TilePurge:
    """For the store of live windows of a profile, as ``tile_store`` finds it."""
    return RedisTilePurge(redis_url, project) if redis_url else SqliteTilePurge(path)


def _names(key: bytes, entity: str, text: str) -> bool:
    parts = key_parts(key)
    return parts is not None and not parts[1] and parts[0].get(entity) == text
