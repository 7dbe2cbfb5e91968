"""Reading and writing the tables behind Feast's sources: Delta ones, and plain parquet as Feast knows it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from ml_platform.features.delta_files import DeltaAddress
from ml_platform.features.feast_source import DeltaSource, store_options
from ml_platform.spec import DeclarationError, MissingHistory, StateError


def scan(source: DataSource, config: RepoConfig) -> pl.LazyFrame:
    """The source's rows under the table's own column names; collect them within ``readable``.

    Raises:
        MissingHistory: the table is not there, or its version is not.
        DeclarationError: a source of another kind.
    """
    delta = _delta(source, config)
    if delta is not None:
        return delta.scan()
    options = _file_options(source, config)
    return pl.scan_parquet(_pattern(_uri(source, config)), storage_options=options or None, missing_columns="insert")


@contextmanager
def readable(source: DataSource, config: RepoConfig) -> Iterator[None]:
    """Says in words that a file is not there.

    Raises:
        MissingHistory: files were removed, or never written.
    """
    delta = _delta(source, config)
    if delta is not None:
        with delta.readable():
            yield
        return
    try:
        yield
    except FileNotFoundError as error:
        raise MissingHistory(f"the source {source.name} reads {_uri(source, config)}, where no file is") from error


def append(source: DataSource, config: RepoConfig, rows: pa.Table) -> None:
    """Add rows that carry the columns of the table, in its types.

    Raises:
        StateError: columns are missing or unknown, or a value does not fit; nothing was written then.
        MissingHistory: the table is not there.
    """
    columns = {name for name, _ in source.get_table_column_names_and_types(config)}
    missing, strange = sorted(columns - set(rows.column_names)), sorted(set(rows.column_names) - columns)
    if missing or strange:
        raise StateError(
            f"rows for the source {source.name} lack {', '.join(missing) or 'nothing'} and bring the unknown "
            f"{', '.join(strange) or 'nothing'}; nothing was written. Give them exactly its columns"
        )
    delta = _delta(source, config)
    if delta is not None:
        delta.append(fitted(rows, delta.schema(), source.name))
        return
    files, path = _file_system(source, config)
    if files.get_file_info(path).type == FileType.Directory:
        held = pq.read_schema(next(_parquet_files(files, path)), filesystem=files)
        pq.write_table(fitted(rows, held, source.name), f"{path}/{uuid4().hex}.parquet", filesystem=files)
        return
    held = pq.read_table(path, filesystem=files)
    beside = f"{path}.{uuid4().hex}"
    pq.write_table(pa.concat_tables([held, fitted(rows, held.schema, source.name)]), beside, filesystem=files)
    files.move(beside, path)  # readers see the old file or the new one, never half of one


def refuse_taken(source: DataSource, config: RepoConfig, *, allow_overwrite: bool) -> None:
    """Look before a long computation whether its answer may be written there.

    Raises:
        SavedDatasetLocationAlreadyExists: something is there and may not be overwritten.
    """
    delta = _delta(source, config)
    if delta is not None:
        is_taken = delta.exists()
    else:
        files, path = _file_system(source, config)
        is_taken = files.get_file_info(path).type != FileType.NotFound
    if is_taken and not allow_overwrite:
        raise SavedDatasetLocationAlreadyExists(location=source.path)


def save(source: DataSource, config: RepoConfig, rows: pa.Table) -> None:
    """Make these rows the whole content of a place."""
    delta = _delta(source, config)
    if delta is not None:
        delta.replace(rows)
        return
    files, path = _file_system(source, config)
    if path.endswith(".parquet"):
        files.create_dir(str(Path(path).parent))
        pq.write_table(rows, path, filesystem=files)
    else:
        pq.write_to_dataset(rows, path, filesystem=files, existing_data_behavior="delete_matching")


def log(source: DataSource, config: RepoConfig, rows: pa.Table, partition_by: Sequence[str] = ()) -> None:
    """Add rows to a log that is made when the first come; it may get new columns over time.

    partition_by: columns to make folders of, where the log is plain parquet.
    """
    delta = _delta(source, config)
    if delta is not None:
        delta.append(rows, new_columns=True)
        return
    files, path = _file_system(source, config)
    pq.write_to_dataset(
        rows,
        path,
        filesystem=files,
        partition_cols=list(partition_by) or None,
        basename_template=f"{uuid4().hex}-{{i}}.parquet",
        existing_data_behavior="overwrite_or_ignore",
    )


def fitted(rows: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """The rows in the columns' order and types; times lose what is finer than the table holds, nothing else is lost.

    Raises:
        StateError: a value does not fit.
    """
    columns = []
    for target in schema:
        column = rows[target.name]
        try:
            columns.append(column.cast(target.type, safe=not pa.types.is_timestamp(target.type)))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise StateError(
                f"the column {target.name} for the source {name} is {column.type} and does not fit {target.type}: "
                f"{error}. Nothing was written"
            ) from error
    return pa.Table.from_arrays(columns, names=schema.names)


def _delta(source: DataSource, config: RepoConfig) -> DeltaAddress | None:
    if isinstance(source, DeltaSource):
        return source.address(config)
    if not isinstance(source, FileSource):
        raise DeclarationError(
            f"the source {source.name} is a {type(source).__name__}; this offline store reads a DeltaSource "
            f"or a FileSource; name one of them"
        )
    if isinstance(source.file_format, DeltaFormat):
        return DeltaAddress(_uri(source, config), options=_file_options(source, config))
    return None


def _uri(source: FileSource, config: RepoConfig) -> str:
    return str(FileSource.get_uri_for_file_path(config.repo_path, source.path))


def _file_options(source: FileSource, config: RepoConfig) -> dict[str, str]:
    endpoint = {"AWS_ENDPOINT_URL": source.s3_endpoint_override} if source.s3_endpoint_override else {}
    return {**store_options(config), **endpoint, **(source.resolve_credentials() or {})}


def _file_system(source: FileSource, config: RepoConfig) -> tuple[FileSystem, str]:
    files, path = FileSource.create_filesystem_and_path(
        _uri(source, config), source.s3_endpoint_override, source.resolve_credentials()
    )
    return files or LocalFileSystem(), path


def _parquet_files(files: FileSystem, folder: str) -> Iterator[str]:
    found = files.get_file_info(FileSelector(folder, recursive=True))
    return (info.path for info in found if info.path.endswith(".parquet"))


def _pattern(uri: str) -> str:
    """A folder means the parquet files in it; what else lies there, a log for instance, is none."""
    return f"{uri.rstrip('/')}/**/*.parquet" if Path(uri).is_dir() else uri
