"""Single Delta tables by address, outside the lake's own layout: read a version, append, replace."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from ml_platform.spec import MissingHistory, StateError
from ml_platform.stores.delta import scan_table

_ATTEMPTS = 10  # appends at the same moment conflict at most once for each other writer


@dataclass(frozen=True)
class DeltaAddress:
    """Where a Delta table stands; ``version``: None is the newest at each reading."""

    uri: str
    version: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def exists(self) -> bool:
        """Whether anything was ever written there."""
        return DeltaTable.is_deltatable(self.uri, storage_options=dict(self.options))

    def open(self) -> DeltaTable:
        """A handle on the table as of the version.

        Raises:
            MissingHistory: the table was never written, or does not reach back (or forward) to the version.
        """
        try:
            return DeltaTable(self.uri, version=self.version, storage_options=dict(self.options))
        except TableNotFoundError as error:
            raise MissingHistory(f"there is no Delta table at {self.uri}; write its first rows there") from error
        except DeltaError as error:
            if self.version is None:
                raise
            newest = DeltaTable(self.uri, storage_options=dict(self.options)).version()
            raise MissingHistory(
                f"version {self.version} of the Delta table at {self.uri} cannot be opened; the newest is {newest}. "
                f"Pin a version that its log still holds, or none ({error})"
            ) from error

    def schema(self) -> pa.Schema:
        """The columns as Arrow types; raises as ``open`` does."""
        return pa.schema(self.open().schema().to_arrow())

    def scan(self) -> pl.LazyFrame:
        """The rows, lazily; collect them within ``readable``. Raises as ``open`` does."""
        return scan_table(self.open())

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Says in words that files were removed under a reader.

        Raises:
            MissingHistory: files of the version were vacuumed.
        """
        try:
            yield
        except FileNotFoundError as error:
            version = "the version just opened" if self.version is None else f"version {self.version}"
            raise MissingHistory(
                f"files of {version} of the Delta table at {self.uri} are gone: VACUUM removed them. Read a newer "
                f"version, or restore the files and vacuum with a longer retention ({error})"
            ) from error

    def append(self, rows: pa.Table, *, new_columns: bool = False) -> None:
        """Add rows, also beside other writers; the table is made if it is not there.

        new_columns: whether columns that the table lacks may be added to it.

        Raises:
            StateError: the address is pinned to a version.
        """
        if self.version is not None:
            raise StateError(
                f"rows cannot be added to version {self.version} of {self.uri}, which does not change; take the "
                f"version out of the source to write to it"
            )
        for attempt in range(_ATTEMPTS):
            try:
                self._write(rows, mode="append", schema_mode="merge" if new_columns else None)
            except CommitFailedError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def replace(self, rows: pa.Table) -> None:
        """Make these rows the whole content of the table, with their columns."""
        self._write(rows, mode="overwrite", schema_mode="overwrite")

    def _write(self, rows: pa.Table, **how: Any) -> None:
        commit = CommitProperties(max_commit_retries=_ATTEMPTS)
        write_deltalake(self.uri, _storable(rows), storage_options=dict(self.options), commit_properties=commit, **how)


def _storable(rows: pa.Table) -> pa.Table:
    """Delta keeps times in microseconds, naive or UTC; pandas counts nanoseconds."""
    kinds = [
        pa.timestamp("us", "UTC" if field.type.tz else None) if pa.types.is_timestamp(field.type) else field.type
        for field in rows.schema
    ]
    columns = [column.cast(kind, safe=False) for column, kind in zip(rows.columns, kinds, strict=True)]
    return pa.Table.from_arrays(columns, names=rows.column_names)
