"""The embedded online store: SQLite in Feast's own layout, written newest-wins.

Feast reads what stands here. Its own writer is not used because it lets an older row overwrite a newer one.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.spec import FeatureView
from ml_platform.stores.feast_bytes import KeyValue, Value, decode_value, encode_value, entity_key_encoder

_BUSY_SECONDS = 30


class OnlineStore:
    """The newest value of every feature of every entity, by Feast's entity key.

    Safe to read from several threads and to write from several processes: each publish is one transaction.
    """

    def __init__(self, path: Path, project: str) -> None:
        """``path``: the SQLite file, made on the first publish. ``project``: Feast's project name."""
        self.path = path
        self.project = project
        self._local = threading.local()
        self._known: set[str] = set()

    def table(self, view: str) -> str:
        """Feast's table name of a view."""
        return f"{self.project}_{view}"

    def publish(self, view: FeatureView, rows: pl.DataFrame, published_at: datetime) -> int:
        """Write each entity's newest row; an older ``as_of`` never replaces a newer one. Returns entities written.

        rows: entity columns, ``as_of`` (UTC) and the view's features. Rows older than the view's ``online_for`` are
        left out, and those that stand there removed.
        """
        names = list(view.entity_names)
        oldest = published_at - view.online_for if view.online_for else None
        if oldest is not None:
            rows = rows.filter(pl.col("as_of") >= oldest)
        newest = rows.sort("as_of").unique(names, keep="last", maintain_order=True)
        encode = entity_key_encoder(view.entity_names)
        features = list(view.schema())
        moments = newest["as_of"].dt.epoch("s").to_list()  # Feast keeps whole unix seconds
        created = int(published_at.timestamp())
        keys = [encode(key) for key in newest.select(names).iter_rows()]
        columns = {name: [encode_value(value) for value in newest[name]] for name in features}
        lines = [
            (key, name, columns[name][n], moment, created)
            for n, (key, moment) in enumerate(zip(keys, moments, strict=True))
            for name in features
        ]
        with self._transaction(view.name) as db:
            db.executemany(
                f"INSERT INTO {self.table(view.name)} (entity_key, feature_name, value, event_ts, created_ts) "
                "VALUES (?, ?, ?, ?, ?) ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = excluded.value, "
                "event_ts = excluded.event_ts, created_ts = excluded.created_ts WHERE excluded.event_ts >= event_ts",
                lines,
            )
            if oldest is not None:
                db.execute(f"DELETE FROM {self.table(view.name)} WHERE event_ts < ?", (oldest.timestamp(),))
        return len(keys)

    def read(self, view: FeatureView, keys: Sequence[tuple[KeyValue | None, ...]]) -> list[dict[str, Value]]:
        """For each key (in the order of ``view.entity_names``) its features.

        The view's empty values where nothing is stored; all None where the key is not whole.
        """
        empty = view.empty()
        encode = entity_key_encoder(view.entity_names)
        encoded = [None if None in key else encode(key) for key in keys]  # type: ignore[arg-type]
        wanted = list({key for key in encoded if key is not None})
        found: dict[bytes, dict[str, Value]] = {key: dict(empty) for key in wanted}
        for key, name, value in self._rows(view.name, wanted):
            if name in empty:
                found[key][name] = decode_value(value)
        return [dict.fromkeys(empty) if key is None else found[key] for key in encoded]

    def _rows(self, view: str, keys: list[bytes]) -> Iterator[tuple[bytes, str, bytes]]:
        db = self._connection()
        for start in range(0, len(keys), 500):  # below SQLite's limit on bound variables
            some = keys[start : start + 500]
            marks = ",".join("?" * len(some))
            query = f"SELECT entity_key, feature_name, value FROM {self.table(view)} WHERE entity_key IN ({marks})"
            try:
                yield from db.execute(query, some)
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise  # an unpublished view has no values yet; anything else is a fault

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "db"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._local.db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._local.db.execute("PRAGMA journal_mode = WAL")
            # A lost commit after a power failure is published again from the feature tables.
            self._local.db.execute("PRAGMA synchronous = NORMAL")
        connection: sqlite3.Connection = self._local.db
        return connection

    @contextmanager
    def _transaction(self, view: str) -> Iterator[sqlite3.Connection]:
        db = self._connection()
        if view not in self._known:
            table = self.table(view)
            db.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, "
                "vector_value BLOB, event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
            )
            db.execute(f"CREATE INDEX IF NOT EXISTS {table}_ek ON {table} (entity_key)")
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
