"""Delta tables: one adapter for reading, replacing partitions and counting rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from ml_platform.spec import MissingHistory

PARTITION = "known_date"
_ATTEMPTS = 5  # a conflicting commit is retried on a fresh handle; writers here are few


@dataclass(frozen=True)
class Lake:
    """All Delta tables under one root, addressed by ``kind/name`` (``raw/weather``)."""

    root: str
    storage_options: Mapping[str, str] = field(default_factory=dict)

    def uri(self, table: str) -> str:
        """The table's address."""
        return f"{self.root.rstrip('/')}/{table}"

    def exists(self, table: str) -> bool:
        """Whether the table was ever written."""
        return DeltaTable.is_deltatable(self.uri(table), storage_options=dict(self.storage_options))

    def version(self, table: str) -> int:
        """The table's newest version.

        Raises:
            MissingHistory: the table was never written.
        """
        return self._open(table).version()

    def replace(self, table: str, rows: pl.DataFrame, days: Sequence[date] | None) -> int:
        """Make ``rows`` the whole content of these days (of the table, if ``None``); returns the new version.

        Writing the same again changes nothing but the version: a retry after a kill is safe.
        """
        if self.root.startswith("/"):
            Path(self.uri(table)).mkdir(parents=True, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            try:
                self._write(table, rows, days)
                return self.version(table)
            except CommitFailedError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _write(self, table: str, rows: pl.DataFrame, days: Sequence[date] | None) -> None:
        predicate = None
        if days is not None:
            predicate = f"{PARTITION} >= '{min(days)}' AND {PARTITION} <= '{max(days)}'"
            if not self.exists(table):
                predicate = None
        write_deltalake(
            self.uri(table),
            rows.to_arrow(),
            mode="overwrite",
            predicate=predicate,
            partition_by=[PARTITION] if days is not None else None,
            storage_options=dict(self.storage_options),
            commit_properties=CommitProperties(max_commit_retries=_ATTEMPTS),
        )

    def scan(self, table: str, *, first: date | None = None, last: date | None = None) -> pl.LazyFrame:
        """Rows of the partitions in [first, last], lazily, as of the newest version.

        Raises:
            MissingHistory: the table was never written.
        """
        frame = pl.scan_delta(self._open(table))
        if first is not None:
            frame = frame.filter(pl.col(PARTITION) >= first)
        if last is not None:
            frame = frame.filter(pl.col(PARTITION) <= last)
        return frame

    def days(self, table: str) -> set[date]:
        """The partitions that hold at least one row."""
        if not self.exists(table):
            return set()
        partitions = self._open(table).partitions()
        return {date.fromisoformat(str(p[PARTITION])) for p in partitions}

    def _open(self, table: str) -> DeltaTable:
        try:
            return DeltaTable(self.uri(table), storage_options=dict(self.storage_options))
        except TableNotFoundError as error:
            raise MissingHistory(
                f"the table {table} was never written (looked in {self.uri(table)}); "
                f"materialize its asset first, or run `ml-platform run`"
            ) from error
