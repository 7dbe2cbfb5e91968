"""The online store: the newest value of every feature, by entity. Here the embedded one, SQLite in Feast's own layout.

Feast reads what stands here, and the reverse. Its own writer is not used because it lets an older row overwrite a newer
one.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from ml_platform.spec import FeatureView
from ml_platform.stores.feast_bytes import KeyValue, Value, encode_moment
from ml_platform.stores.online_batch import Batch, publication
from ml_platform.stores.online_decode import Reply
from ml_platform.stores.online_plan import Fetch, Group, Plan, PlannedReads, Wanted

if TYPE_CHECKING:  # a serving process of the embedded profile needs no Redis client
    from ml_platform.stores.redis_line import RedisLine

_BUSY_SECONDS = 30
_KEYS_A_QUERY = 500  # below SQLite's limit on bound variables
_SECOND = 1_000_000  # microseconds

# Feast's columns hold whole seconds, and it leaves columns alone that it does not know. Ours beside them are finer;
# where they are of another second than Feast's, Feast wrote the row and ours are of the row before.
_OWN_COLUMNS = ("event_us", "created_us")
_EVENT = (
    f"CASE WHEN event_us - event_ts * {_SECOND} BETWEEN 0 AND {_SECOND - 1} THEN event_us ELSE event_ts * {_SECOND} END"
)
_CREATED = (
    f"CASE WHEN created_us - created_ts * {_SECOND} BETWEEN 0 AND {_SECOND - 1} THEN created_us "
    f"ELSE coalesce(created_ts * {_SECOND}, -9223372036854775808) END"
)


class Online(Protocol):
    """What every online store does; one object may be used from several threads, and it may be pickled."""

    def publish(self, view: FeatureView, rows: pl.DataFrame, published_at: datetime) -> int:
        """Write each entity's newest row unless a newer one stands there; returns entities written.

        Of two rows with the same ``as_of`` the one published later (``published_at``) wins. All features of a row are
        exchanged at once. Rows older than the view's ``online_for`` are left out, and those that stand there removed.
        Publishing the same again, or less again, changes nothing.

        rows: entity columns, ``as_of`` (UTC) and the view's features.

        Raises:
            StoreUnavailable: the store cannot be reached; some entities may have been written.
        """

    def read(self, view: FeatureView, keys: Sequence[tuple[KeyValue | None, ...]]) -> list[dict[str, Value]]:
        """For each key (in the order of ``view.entity_names``) its features, whatever their age."""

    def plan(self, wanted: Wanted, *, fill: bool = False) -> Plan:
        """A plan that reads these features of these views, with their age and a status for each value."""

    def line(self) -> "RedisLine | None":
        """A connection for one event loop, to which ``Plan.pack`` is sent; None where no server is asked."""


def online_store(address: str | Path, project: str) -> Online:
    """The store at an address: Redis if it is a URL, else the SQLite file. ``project``: Feast's project name.

    Raises:
        DeclarationError: the URL is none of Redis.
    """
    if isinstance(address, Path):
        return OnlineStore(address, project)
    # A serving process of the embedded profile needs no Redis client.
    from ml_platform.stores.online_redis import RedisOnlineStore

    return RedisOnlineStore(address, project)


class OnlineStore(PlannedReads):
    """The embedded online store, by Feast's entity key.

    Safe to read from several threads and to write from several processes: each publish is one transaction.
    """

    def __init__(self, path: Path, project: str) -> None:
        """``path``: the SQLite file, made on the first publish. ``project``: Feast's project name."""
        super().__init__()
        self.path = path
        self.project = project
        self._local = threading.local()
        self._known: set[str] = set()

    def table(self, view: str) -> str:
        """Feast's table name of a view."""
        return f"{self.project}_{view}"

    def publish(self, view: FeatureView, rows: pl.DataFrame, published_at: datetime) -> int:
        """See ``Online.publish``; one transaction, so it is done wholly or not at all."""
        new = publication(view, rows, published_at)
        table = self.table(view.name)
        count = 0
        with self._transaction(view.name) as db:
            for batch in new.batches(_KEYS_A_QUERY):
                written = [n for n, newer in enumerate(self._newer(db, table, batch, new.created)) if newer]
                lines = [
                    (batch.keys[n], name, column[n], moment // _SECOND, new.created // _SECOND, moment, new.created)
                    for n in written
                    for moment in [batch.moments[n]]
                    for name, column in batch.columns.items()
                ]
                db.executemany(
                    f"INSERT INTO {table} "
                    "(entity_key, feature_name, value, event_ts, created_ts, event_us, created_us) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (entity_key, feature_name) DO UPDATE SET "
                    "value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts, "
                    "event_us = excluded.event_us, created_us = excluded.created_us",
                    lines,
                )
                count += len(written)
            if new.oldest is not None:
                db.execute(f"DELETE FROM {table} WHERE {_EVENT} < ?", (new.oldest,))
        return count

    def _newer(self, db: sqlite3.Connection, table: str, batch: Batch, created: int) -> Iterator[bool]:
        """For each row whether it is as new as what stands there, by event time and then by creation."""
        stored: dict[bytes, tuple[int, int]] = {}
        where = f"WHERE entity_key IN ({_marks(batch.keys)})"
        query = f"SELECT DISTINCT entity_key, {_EVENT}, {_CREATED} FROM {table} {where}"
        for key, event, made in db.execute(query, batch.keys):
            stored[key] = max((event, made), stored.get(key, (event, made)))
        for key, moment in zip(batch.keys, batch.moments, strict=True):
            yield key not in stored or (moment, created) >= stored[key]

    def _fetcher(self, groups: Sequence[Group]) -> Fetch:
        def fetch(asked: Sequence[Sequence[bytes]]) -> Iterator[Sequence[Reply]]:
            for group, keys in zip(groups, asked, strict=True):
                fields = group.decoder.fields
                places = {field: n for n, field in enumerate(fields)}
                found: dict[bytes, list[bytes | None]] = {key: [None] * len(fields) for key in keys}
                for part in group.parts:
                    view = part.view.name
                    moments: dict[bytes, int] = {}
                    for key, name, value, moment in self._rows(view, part.features, keys):
                        found[key][places[view, name]] = value
                        moments[key] = max(moment, moments.get(key, moment))
                    for key, moment in moments.items():
                        found[key][places[view, None]] = encode_moment(moment)
                yield list(found.values())

        return fetch

    def _rows(
        self, view: str, features: Sequence[str], keys: Sequence[bytes]
    ) -> Iterator[tuple[bytes, str, bytes, int]]:
        for start in range(0, len(keys), _KEYS_A_QUERY):
            some = keys[start : start + _KEYS_A_QUERY]
            query = (
                f"SELECT entity_key, feature_name, value, {_EVENT} FROM {self.table(view)} "
                f"WHERE entity_key IN ({_marks(some)}) AND feature_name IN ({_marks(features)})"
            )
            try:
                yield from self._connection().execute(query, [*some, *features])
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return  # an unpublished view has no values yet
                if "no such column" not in str(error):
                    raise
                self._prepare(self._connection(), view)  # made by Feast, or before the columns were there
                yield from self._connection().execute(query, [*some, *features])

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "db"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._local.db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._local.db.execute("PRAGMA journal_mode = WAL")
            # A lost commit after a power failure is published again from the feature tables.
            self._local.db.execute("PRAGMA synchronous = NORMAL")
        connection: sqlite3.Connection = self._local.db
        return connection

    def _prepare(self, db: sqlite3.Connection, view: str) -> None:
        """Feast's table of a view, with our two columns."""
        table = self.table(view)
        db.execute("BEGIN IMMEDIATE")  # two processes may come at once
        try:
            db.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, "
                "vector_value BLOB, event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
            )
            db.execute(f"CREATE INDEX IF NOT EXISTS {table}_ek ON {table} (entity_key)")
            there = {column[1] for column in db.execute(f"PRAGMA table_info({table})")}
            for column in _OWN_COLUMNS:
                if column not in there:
                    db.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    @contextmanager
    def _transaction(self, view: str) -> Iterator[sqlite3.Connection]:
        db = self._connection()
        if view not in self._known:
            self._prepare(db, view)
            self._known.add(view)
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def __getstate__(self) -> dict[str, Any]:
        """Connections stay in their process."""
        return {"path": self.path, "project": self.project}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open anew."""
        self.__init__(**state)  # type: ignore[misc]


def _marks(bound: Sequence[object]) -> str:
    return ",".join("?" * len(bound))
