"""Dagster's storage in three SQLite files, kept open.

Dagster's own SQLite storage opens a new engine for every statement, so that each is compiled anew, and a new database
file for every run. One engine a file that stays open, and one event log for all runs, make a replayed day several times
cheaper. The tables are Dagster's.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dagster._config import StringSource
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log.schema import AssetKeyTable
from dagster._core.storage.event_log.sqlite import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs.sqlite import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

_BUSY_SECONDS = 30  # as Dagster waits for another process's write


def _engine(address: str) -> sa.Engine:
    engine = sa.create_engine(address, connect_args={"timeout": _BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        # With the write-ahead log, NORMAL loses nothing when a process is killed; only a power cut may lose the last
        # commits, never the file.
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


class _Kept:
    """Keeps the engine of ``_conn_string``."""

    _conn_string: str

    @cached_property
    def _engine(self) -> sa.Engine:
        return _engine(self._conn_string)

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection with its transaction."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        """Close all connections."""
        self._engine.dispose()


class _Runs(_Kept, SqliteRunStorage):
    pass


class _Schedules(_Kept, SqliteScheduleStorage):
    pass


class _Events(_Kept, ConsolidatedSqliteEventLogStorage):
    def _connect(self) -> Any:
        return self.connect()

    def has_table(self, table_name: str) -> bool:
        with self._engine.connect() as connection:
            return bool(sa.inspect(connection).has_table(table_name))

    def _has_asset_key_col_on_connection(self, conn: sa.Connection, column_name: str) -> bool:
        # Dagster looks into the schema with every event; these files are made by this version, so it has them all.
        return column_name in AssetKeyTable.c

    def dispose(self) -> None:
        ConsolidatedSqliteEventLogStorage.dispose(self)  # type: ignore[no-untyped-call]  # Dagster left it untyped
        self._engine.dispose()


class SqliteStorage(DagsterStorage, ConfigurableClass):
    """Runs, events and schedules under ``base_dir``; named in ``dagster.yaml`` as a custom storage."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        folder = Path(base_dir)
        self._inst_data = inst_data
        self._runs = _Runs.from_local(str(folder / "history"))
        self._events = _Events(str(folder / "history"))
        self._schedules = _Schedules.from_local(str(folder / "schedules"))
        super().__init__()  # type: ignore[no-untyped-call]  # Dagster left it untyped

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What Dagster rebuilds this from in another process."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        """One setting, the folder."""
        return {"base_dir": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "SqliteStorage":
        """Dagster's entry."""
        return cls(inst_data=inst_data, base_dir=config_value["base_dir"])

    @property
    def event_log_storage(self) -> Any:
        """Events of all runs."""
        return self._events

    @property
    def run_storage(self) -> Any:
        """Runs."""
        return self._runs

    @property
    def schedule_storage(self) -> Any:
        """Sensors' ticks and cursors."""
        return self._schedules

    def register_instance(self, instance: Any) -> None:
        """Tell the parts to which instance they belong."""
        super().register_instance(instance)
        for part in (self._runs, self._events, self._schedules):
            if not part.has_instance:
                part.register_instance(instance)

    def dispose(self) -> None:
        """Close all connections."""
        for part in (self._events, self._runs, self._schedules):
            part.dispose()
