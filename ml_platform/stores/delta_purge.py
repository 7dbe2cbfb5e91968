"""Rows taken out of Delta tables for good: out of the newest version, and with all earlier versions off the disk.

What a table was before cannot be read afterwards. Its version numbers go on, and the marks of application transactions
stay. Nobody else may use the table meanwhile: a reader of an earlier version would lose its files.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import polars as pl
from deltalake.fs import DeltaStorageHandler

from ml_platform.stores.delta import PARTITION, Lake, scan_table

_LOG = "_delta_log"
_DAYS_AT_ONCE = 31  # so many days of a table are rewritten in one commit, so that memory is bounded
Gone = Callable[[Iterable[str]], pl.Expr | None]  # by the names of a table's columns: the rows to take out, None: none


@dataclass(frozen=True, kw_only=True)
class TableLook:
    """rows: in the newest version. old_files: of earlier versions that hold such rows. in_log: the log says their
    value, as the lowest or highest of a file."""

    rows: int
    old_files: int
    in_log: bool
    version: int

    @property
    def holds(self) -> bool:
        """Whether anything is to be taken out."""
        return bool(self.rows or self.old_files or self.in_log)


def table_names(lake: Lake) -> list[str]:
    """Every Delta table under the lake's root, declared or not, as ``kind/name``."""
    address = urlparse(lake.root)
    if address.scheme in ("", "file") and not Path(unquote(address.path)).is_dir():
        return []
    tail = f"/{_LOG}"
    return sorted(path.removesuffix(tail) for path in _paths(_files(lake, ""), "", recursive=True, tail=tail))


def look(lake: Lake, table: str, gone: Gone, texts: Mapping[str, frozenset[str]]) -> TableLook:
    """What a table holds of the rows that ``gone`` chooses; ``texts``: values by column that its log may not say."""
    target = lake.opened(table)
    rows = _chosen(scan_table(target), gone)
    return TableLook(
        rows=0 if rows is None else int(rows.select(pl.len()).collect().item()),
        old_files=sum(not part.is_empty() for part in old_rows(lake, table, gone)),
        in_log=any(_says(content, texts) for content in _log_texts(lake, table)),
        version=target.version(),
    )


def old_rows(lake: Lake, table: str, gone: Gone) -> Iterator[pl.DataFrame]:
    """The chosen rows of each file that is left of earlier versions, without the partition's column."""
    storage = dict(lake.storage_options) or None
    for path in _unused(lake, table):
        place = f"{lake.uri(table)}/{path}"
        rows = _chosen(pl.scan_parquet(place, storage_options=storage, glob=False, hive_partitioning=False), gone)
        if rows is not None:
            yield rows.collect()


def current_rows(lake: Lake, table: str, gone: Gone) -> pl.DataFrame:
    """The chosen rows of the newest version; none of no columns where its columns say nothing."""
    rows = _chosen(scan_table(lake.opened(table)), gone)
    return pl.DataFrame() if rows is None else rows.collect()


def purge(lake: Lake, table: str, gone: Gone) -> int:
    """Take the chosen rows out, remove all files of earlier versions, and their log; returns the first version that can
    be read.

    Each step may be repeated: after a kill, doing it again ends it.
    """
    _rewrite(lake, table, gone)
    lake.opened(table).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    target = lake.opened(table)
    target.create_checkpoint()
    _trim(lake, table, target.version())
    return target.version()


def first_readable(lake: Lake, table: str) -> int:
    """The earliest version that can still be opened."""
    names = [path.rpartition("/")[2] for path in _paths(_files(lake, table), _LOG)]
    checkpoints = [_number(name) for name in names if ".checkpoint." in name and name[:1].isdigit()]
    commits = [_number(name) for name in names if name.endswith(".json") and name[:1].isdigit()]
    return 0 if 0 in commits else min(checkpoints, default=min(commits))


def _chosen(rows: pl.LazyFrame, gone: Gone) -> pl.LazyFrame | None:
    chosen = gone(rows.collect_schema().names())
    return None if chosen is None else rows.filter(chosen)


def _rewrite(lake: Lake, table: str, gone: Gone) -> None:
    target = lake.opened(table)
    rows = scan_table(target)
    chosen = gone(rows.collect_schema().names())
    if chosen is None:
        return
    if PARTITION not in target.metadata().partition_columns:
        if rows.filter(chosen).select(pl.len()).collect().item():
            lake.replace(table, rows.filter(~chosen).collect(), None)
        return
    days = rows.filter(chosen).select(pl.col(PARTITION).unique()).collect()[PARTITION].sort().to_list()
    for start in range(0, len(days), _DAYS_AT_ONCE):
        some = days[start : start + _DAYS_AT_ONCE]
        kept = scan_table(lake.opened(table)).filter(pl.col(PARTITION).is_in(some), ~chosen)
        lake.replace(table, kept.collect(), some)


def _unused(lake: Lake, table: str) -> list[str]:
    """Files that lie there and belong to no row of the newest version."""
    used = {unquote(name) for names in lake.files(table).values() for name in names}
    there = _paths(_files(lake, table), "", recursive=True)
    return sorted(path for path in there if path.endswith(".parquet") and f"{_LOG}/" not in path and path not in used)


def _trim(lake: Lake, table: str, version: int) -> None:
    """The log up to the checkpoint of this version: its statistics say values of rows that are gone."""
    files = _files(lake, table)
    for path in _paths(files, _LOG):
        name = path.rpartition("/")[2]
        if name[:1].isdigit() and _number(name) < version:
            files.delete_file(path)


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _log_texts(lake: Lake, table: str) -> Iterator[str]:
    """What the log holds, commits and checkpoints, as JSON lines."""
    files = _files(lake, table)
    for path in _paths(files, _LOG):
        with files.open_input_file(path) as file:
            content = file.read()
        if path.endswith(".parquet"):
            yield pl.read_parquet(io.BytesIO(content)).select(pl.col("add")).drop_nulls().write_ndjson()
        else:
            yield content.decode(errors="replace")


def _says(log: str, texts: Mapping[str, frozenset[str]]) -> bool:
    return any(
        _bound_is(statistics, column, values)
        for statistics in _statistics(log)
        for column, values in texts.items()
        if values
    )


def _statistics(log: str) -> Iterator[Mapping[str, Any]]:
    for line in log.splitlines():
        added = json.loads(line).get("add") if line.startswith("{") else None
        if not added:
            continue
        stored = added.get("stats_parsed") or added.get("stats")
        statistics = json.loads(stored) if isinstance(stored, str) and stored else stored
        if statistics:
            yield statistics


def _bound_is(statistics: Mapping[str, Any], column: str, values: frozenset[str]) -> bool:
    bounds = [(statistics.get(kind) or {}).get(column) for kind in ("minValues", "maxValues")]
    return any(str(bound) in values for bound in bounds if bound is not None)


def _files(lake: Lake, table: str) -> Any:
    """The table's folder, local or not, through the same library that wrote it."""
    import pyarrow.fs

    root = lake.uri(table) if table else lake.root
    return pyarrow.fs.PyFileSystem(DeltaStorageHandler(root, options=dict(lake.storage_options) or None))


def _paths(files: Any, folder: str, *, recursive: bool = False, tail: str = "") -> list[str]:
    import pyarrow.fs

    found = files.get_file_info(pyarrow.fs.FileSelector(folder, recursive=recursive))
    if not tail:
        return [each.path for each in found if each.type == pyarrow.fs.FileType.File]
    # An object store has no folders of its own, so that they show in the names of what lies in them.
    inside = {each.path[: each.path.index(f"{tail}/") + len(tail)] for each in found if f"{tail}/" in each.path}
    return list(inside)
