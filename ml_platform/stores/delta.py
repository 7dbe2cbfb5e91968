"""Delta tables: one adapter for reading, replacing partitions and counting rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import sha256
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from ml_platform.spec import MissingHistory, StateError
from ml_platform.spec.manifests import TableVersion
from ml_platform.stores.delta_kept import KeptRows, OpenedTables

PARTITION = "known_date"
_ATTEMPTS = 10  # a conflicting commit is retried on a fresh handle; writers here are few
# Opening a table replays the log since the last checkpoint: 8 ms at ten commits, 48 ms at ninety (the default is 100).
# A checkpoint carries every file that was replaced within the retention: by default of a week it grows with each write.
# It says nothing about how long files are kept: only `ml-platform vacuum` and `ml-platform forget` remove any.
_TABLE_SETTINGS = {
    "delta.checkpointInterval": "10",
    "delta.deletedFileRetentionDuration": "interval 10 minutes",
    # An old version is read by its log, which is small; whether its rows are still there is for VACUUM to decide.
    "delta.logRetentionDuration": "interval 36500 days",
}


@dataclass(frozen=True)
class Lake:
    """All Delta tables under one root, addressed by ``kind/name`` (``raw/weather``).

    versions: tables that are read as of a version, whatever was written since.
    """

    root: str
    storage_options: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    _opened: OpenedTables = field(default_factory=OpenedTables, init=False, repr=False, compare=False)
    _rows: KeptRows = field(default_factory=KeptRows, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type["Lake"], tuple[str, Mapping[str, str], Mapping[str, int]]]:
        """What is kept stays in its process."""
        return Lake, (self.root, self.storage_options, self.versions)

    def as_of(self, versions: Mapping[str, int]) -> "Lake":
        """The same tables, these of them read as of their versions."""
        return replace(self, versions=dict(versions))

    def apart(self) -> "Lake":
        """The same tables; the rows that are read through it are kept no longer than it is."""
        return replace(self)

    def uri(self, table: str) -> str:
        """The table's address."""
        return f"{self.root.rstrip('/')}/{table}"

    def exists(self, table: str) -> bool:
        """Whether the table was ever written."""
        uri = self.uri(table)
        return self._opened.newest(uri) is not None or DeltaTable.is_deltatable(
            uri, storage_options=dict(self.storage_options)
        )

    def version(self, table: str) -> int:
        """The table's newest version.

        Raises:
            MissingHistory: the table was never written.
        """
        return self._open(table).version()

    def identity(self, table: str) -> TableVersion:
        """The table's version, and a digest of the files that make it.

        Raises:
            MissingHistory: the table was never written, or this version of it cannot be read any more.
        """
        target = self._open(table)
        names = "\n".join(sorted(name for _, name in _files(target)))
        return TableVersion(version=target.version(), files=sha256(names.encode()).hexdigest())

    def replace(self, table: str, rows: pl.DataFrame, days: Sequence[date] | None) -> int:
        """Make ``rows`` the whole content of these days (of the table, if ``None``); returns the new version.

        Writing the same again changes nothing but the version: a retry after a kill is safe. Other days stay as they
        are, also while other processes write them. Clearing days that hold no rows writes nothing.

        Raises:
            StateError: rows lie outside the days, or the table on disk has other types than the rows.
        """
        if days is not None:
            _refuse_strays(table, rows, days)
        for attempt in range(_ATTEMPTS):
            try:
                return self._replace(table, rows, days)
            except CommitFailedError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _replace(self, table: str, rows: pl.DataFrame, days: Sequence[date] | None) -> int:
        target = self._opened_or_created(table, rows, days)
        if rows.is_empty() and days is not None and not self._filled(target) & set(days):
            return target.version()
        if days is not None:
            _refuse_other_types(target, rows, f"{table} in {self.uri(table)}")
        write_deltalake(
            target,
            rows.to_arrow(),
            mode="overwrite",
            predicate=_predicate(days) if days is not None else None,
            schema_mode="merge" if days is not None else "overwrite",
            commit_properties=CommitProperties(max_commit_retries=_ATTEMPTS),
            post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
        )
        self._opened.keep(self.uri(table), target)  # as of what was just written: whoever reads it need not open it
        return target.version()

    def _opened_or_created(self, table: str, rows: pl.DataFrame, days: Sequence[date] | None) -> DeltaTable:
        """Creating the empty table first lets every write be limited to its days, also the first of two at once."""
        if not self.exists(table):
            try:
                write_deltalake(
                    self.uri(table),
                    rows.clear().to_arrow(),
                    mode="error",
                    partition_by=[PARTITION] if days is not None else None,
                    configuration=_TABLE_SETTINGS,
                    storage_options=dict(self.storage_options),
                )
            except DeltaError:
                if not self.exists(table):  # else another process was quicker
                    raise
        return self._fresh(table)

    def scan(
        self, table: str, *, first: date | None = None, last: date | None = None, version: int | None = None
    ) -> pl.LazyFrame:
        """Rows of the partitions in [first, last], lazily, as of a version (the newest by default).

        Raises:
            MissingHistory: the table was never written.
        """
        frame = scan_table(self._open(table, version))
        if first is not None:
            frame = frame.filter(pl.col(PARTITION) >= first)
        if last is not None:
            frame = frame.filter(pl.col(PARTITION) <= last)
        return frame

    def read(self, table: str, *, first: date | None = None, last: date | None = None) -> pl.DataFrame:
        """All columns of the partitions in [first, last], of the newest version.

        Rows of files that were read before are kept, up to a limit: for days that are read again and again.

        Raises:
            MissingHistory: the table was never written.
        """
        target = self._open(table)
        schema, root = pl.Schema(target.schema()), _local(target.table_uri)
        found = [
            self._rows.rows(f"{root}/{name}", lambda name=name: self._rows_of(target, f"{root}/{name}"))  # type: ignore[misc]
            for day, name in sorted(_files(target), key=lambda file: (file[0] or date.min, file[1]))
            if day is None or ((first is None or day >= first) and (last is None or day <= last))
        ]
        # A column that was added since a file was read is missing in what is kept of it.
        parts = [
            rows if rows.schema == schema else pl.concat([pl.DataFrame(schema=schema), rows], how="diagonal")
            for rows in found
        ]
        return pl.concat([pl.DataFrame(schema=schema), *parts])

    def _rows_of(self, target: DeltaTable, file: str) -> pl.DataFrame:
        try:
            return _scan_files(target, [file], self.storage_options).collect()
        except FileNotFoundError as error:
            raise MissingHistory(
                f"version {target.version()} of {_local(target.table_uri)} cannot be read any more: {file} was "
                f"removed (by VACUUM, or by hand)"
            ) from error

    def count(self, table: str, first: date | None = None, last: date | None = None) -> int:
        """Rows of the partitions in [first, last]; zero if the table was never written."""
        if not self.exists(table):
            return 0
        return int(self.scan(table, first=first, last=last).select(pl.len()).collect().item())

    def days(self, table: str) -> set[date]:
        """The partitions that hold at least one row."""
        return self._filled(self._open(table)) if self.exists(table) else set()

    def files(self, table: str) -> dict[date | None, tuple[str, ...]]:
        """Names of the files that hold each day's rows (``None``: of a table without days); none if never written.

        A file is never changed and its name never used again: the same names are the same rows.
        """
        if not self.exists(table):
            return {}
        target = self._open(table)
        found: dict[date | None, list[str]] = {}
        for day, name in sorted(_files(target), key=lambda pair: pair[1]):
            found.setdefault(day, []).append(name)
        return {day: tuple(names) for day, names in found.items()}

    @staticmethod
    def _filled(target: DeltaTable) -> set[date]:
        return {date.fromisoformat(str(p[PARTITION])) for p in target.partitions()}

    def _open(self, table: str, version: int | None = None) -> DeltaTable:
        """For reading; what will be written to is opened for that."""
        version = self.versions.get(table) if version is None else version
        if version is not None:
            return self._fresh(table, version)
        uri = self.uri(table)
        found = self._opened.newest(uri)
        if found is None:
            found = self._fresh(table)
            self._opened.keep(uri, found)
        return found

    def opened(self, table: str) -> DeltaTable:
        """The table itself, at its newest version, for what is not offered here.

        Raises:
            MissingHistory: the table was never written.
        """
        return self._fresh(table)

    def _fresh(self, table: str, version: int | None = None) -> DeltaTable:
        try:
            return DeltaTable(self.uri(table), version=version, storage_options=dict(self.storage_options))
        except TableNotFoundError as error:
            if version is not None and self.exists(table):
                raise MissingHistory(
                    f"an entity was forgotten, and version {version} of {table} went with it; the newest is "
                    f"{self._fresh(table).version()}"
                ) from error
            raise MissingHistory(
                f"the table {table} was never written (looked in {self.uri(table)}); "
                f"materialize its asset first, or run `ml-platform run`"
            ) from error
        except DeltaError as error:
            if version is None:
                raise
            raise MissingHistory(f"{table} has no version {version} ({self.uri(table)}): {error}") from error


def scan_table(target: DeltaTable) -> pl.LazyFrame:
    """``pl.scan_delta``, also under a local path with a space or an accent, whose quoted form it fails to open."""
    if not (target.table_uri.startswith("file:") and "%" in target.table_uri):
        return pl.scan_delta(target)
    return _scan_files(target, [unquote(file) for file in target.file_uris()])


def _local(uri: str) -> str:
    """A path, where the address is one of the local disk."""
    return (unquote(uri.removeprefix("file://")) if uri.startswith("file:") else uri).rstrip("/")


def _files(target: DeltaTable) -> list[tuple[date | None, str]]:
    """(day, path within the table) of each file; the day is ``None`` in a table without days."""
    known = pl.DataFrame(target.get_add_actions(flatten=True))
    by_day = f"partition.{PARTITION}"
    days = known[by_day].to_list() if by_day in known.columns else [None] * known.height
    return list(zip(days, known["path"], strict=True))


def _scan_files(
    target: DeltaTable, files: Sequence[str], storage_options: Mapping[str, str] | None = None
) -> pl.LazyFrame:
    schema = pl.Schema(target.schema())
    if not files:
        return pl.LazyFrame(schema=schema)
    partitions = target.metadata().partition_columns
    return pl.scan_parquet(
        list(files),
        schema={name: dtype for name, dtype in schema.items() if name not in partitions},
        hive_schema={name: schema[name] for name in partitions} or None,
        hive_partitioning=bool(partitions),
        missing_columns="insert",
        glob=False,
        storage_options=dict(storage_options) if storage_options else None,
    ).select(schema.names())


def _refuse_strays(table: str, rows: pl.DataFrame, days: Sequence[date]) -> None:
    strays = set(rows[PARTITION].unique()) - set(days)
    if strays:
        raise StateError(
            f"rows of {', '.join(sorted(str(day) for day in strays))} cannot be written to {table} as the content of "
            f"{len(days)} days from {min(days)} to {max(days)}; nothing was written"
        )


def _refuse_other_types(target: DeltaTable, rows: pl.DataFrame, where: str) -> None:
    """Delta would cast them silently: 1.7 becomes 1 in a column of integers."""
    stored = pl.Schema(target.schema())
    changed = [
        f"{name} is {dtype} instead of {stored[name]}"
        for name, dtype in rows.schema.items()
        if name in stored and not _fits(dtype, stored[name])
    ]
    if changed:
        raise StateError(
            f"the rows do not fit the table {where}: {'; '.join(changed)}. Nothing was written; if the change is "
            f"meant, delete that folder and materialize its days again"
        )


def _fits(dtype: pl.DataType, stored: pl.DataType) -> bool:
    if dtype == stored or dtype == pl.Null:
        return True
    if stored.is_integer():
        return dtype.is_integer()
    if stored.is_float():
        return dtype.is_numeric()
    if isinstance(dtype, pl.Datetime) and isinstance(stored, pl.Datetime):
        return dtype.time_zone == stored.time_zone
    if stored == pl.String:
        return isinstance(dtype, pl.Categorical | pl.Enum)
    return type(dtype) is type(stored)


def _predicate(days: Sequence[date]) -> str:
    """A condition on the partition alone, so that writers of other days do not conflict."""
    if (max(days) - min(days)).days + 1 == len(set(days)):
        return f"{PARTITION} >= '{min(days)}' AND {PARTITION} <= '{max(days)}'"
    return f"{PARTITION} IN ({', '.join(repr(str(day)) for day in sorted(set(days)))})"
