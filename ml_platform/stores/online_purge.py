"""Taking an entity, or all of a view, out of an online store. Nobody may be publishing meanwhile.

What a store keeps of an entity is found by its key, whoever wrote it: values of views that are not declared any more,
and what Feast's own client wrote, go with the others.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ml_platform.spec import FeatureView
from ml_platform.stores.feast_bytes import hash_field, key_parts, moment_field
from ml_platform.stores.online_redis import RedisOnlineStore, stamp_field
from ml_platform.stores.redis_keys import PATIENCE, keys_like, literally
from ml_platform.stores.redis_wire import RedisWire, Word, packed
from ml_platform.stores.sqlite_files import reading, removing


class OnlinePurge(Protocol):
    """What is taken out of an online store; all of it may be repeated."""

    def holding(self, entity: str, text: str) -> int:
        """How many keys name this value of the entity, alone or beside other entities."""
        ...

    def drop(self, entity: str, text: str) -> None:
        """Remove those keys with all they hold."""
        ...

    def clear(self, view: FeatureView) -> None:
        """Remove every value of a view, so that it can be published anew."""
        ...


class SqlitePurge:
    """Of the embedded store, a SQLite file in Feast's layout."""

    def __init__(self, path: Path, project: str) -> None:
        """``project``: Feast's project name."""
        self.path, self.project = path, project

    def holding(self, entity: str, text: str) -> int:
        """See ``OnlinePurge.holding``."""
        if not self.path.exists():
            return 0
        with reading(self.path) as db:
            return len({key for table in self._tables(db) for key in _naming(db, table, entity, text)})

    def drop(self, entity: str, text: str) -> None:
        """See ``OnlinePurge.drop``; the file is written anew, so that no free page of it holds a value."""
        if not self.path.exists():
            return
        with removing(self.path) as db:
            for table in self._tables(db):
                keys = [(key,) for key in _naming(db, table, entity, text)]
                db.executemany(f'DELETE FROM "{table}" WHERE entity_key = ?', keys)

    def clear(self, view: FeatureView) -> None:
        """See ``OnlinePurge.clear``."""
        if not self.path.exists():
            return
        with removing(self.path) as db:
            if f"{self.project}_{view.name}" in self._tables(db):
                db.execute(f'DELETE FROM "{self.project}_{view.name}"')

    def _tables(self, db: sqlite3.Connection) -> list[str]:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [name for name in names if any(c[1] == "entity_key" for c in db.execute(f'PRAGMA table_info("{name}")'))]


class RedisPurge:
    """Of production's store."""

    def __init__(self, url: str, project: str) -> None:
        """``url``: as of ``RedisOnlineStore``."""
        self._store = RedisOnlineStore(url, project)
        self._wire = RedisWire(url, PATIENCE)
        self._suffix = project.encode()

    def holding(self, entity: str, text: str) -> int:
        """See ``OnlinePurge.holding``."""
        return sum(1 for _ in self._naming(entity, text))

    def drop(self, entity: str, text: str) -> None:
        """See ``OnlinePurge.drop``; the indexes of ages forget the keys, too."""
        indexes = list(keys_like(self._wire, b"_ages:*:" + literally(self._suffix.decode())))
        for key in list(self._naming(entity, text)):
            commands: list[tuple[Word, ...]] = [("DEL", key), *(("ZREM", index, key) for index in indexes)]
            self._wire.ask(b"".join(packed(*command) for command in commands), len(commands))

    def clear(self, view: FeatureView) -> None:
        """See ``OnlinePurge.clear``; of a key that other views share, only this view's fields."""
        fields = [moment_field(view.name), stamp_field(view.name), *(hash_field(view.name, f) for f in view.schema())]
        names = set(view.entity_names)
        for key, named in self._keys():
            if named.keys() == names:
                self._wire.ask(packed("HDEL", key, *fields), 1)
        self._wire.ask(packed("DEL", self._store.index(view.name)), 1)

    def _naming(self, entity: str, text: str) -> Iterator[bytes]:
        return (key for key, named in self._keys() if named.get(entity) == text)

    def _keys(self) -> Iterator[tuple[bytes, dict[str, str]]]:
        for key in keys_like(self._wire, b"*" + literally(self._suffix.decode())):
            parts = key_parts(key)
            if parts is not None and parts[1] == self._suffix:
                yield key, parts[0]


def online_purge(address: str | Path, project: str) -> OnlinePurge:
    """For the store at an address, as ``online_store`` takes it."""
    return SqlitePurge(address, project) if isinstance(address, Path) else RedisPurge(address, project)


def _naming(db: sqlite3.Connection, table: str, entity: str, text: str) -> Iterator[bytes]:
    for (key,) in db.execute(f'SELECT DISTINCT entity_key FROM "{table}"').fetchall():
        parts = key_parts(key)
        if parts is not None and parts[0].get(entity) == text:
            yield key
