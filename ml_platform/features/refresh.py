"""From raw tables to feature rows: read what the windows look back on, compute, say which day each row belongs to."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta

import polars as pl

from ml_platform.features.windows import AS_OF, feature_rows, history_needed
from ml_platform.spec import KNOWN_AT, FeatureView, Latest, MissingHistory, Project
from ml_platform.spec.calendar import day_of, day_start
from ml_platform.spec.lineage import view_columns
from ml_platform.stores.delta import PARTITION, Lake

GRID = timedelta(hours=1)  # the as-of grid of the whole project's tables


def table_name(view: FeatureView) -> str:
    """Where a view's rows stand in the lake."""
    return f"features/{view.name}"


def is_daily(view: FeatureView, project: Project) -> bool:
    """Whether the view follows daily raw tables, or a reference table that is read whole."""
    return project.tables[view.source].partitioned


def column_types(view: FeatureView) -> dict[str, pl.DataType | type[pl.DataType]]:
    """The columns of a view's table, in order, with their types."""
    return {
        **{entity.name: pl.String if entity.dtype == "string" else pl.Int64 for entity in view.entities},
        AS_OF: pl.Datetime("us", "UTC"),
        **{name: pl.Int64 if kind == "int64" else pl.Float64 for name, kind in view.schema().items()},
        PARTITION: pl.Date,
    }


def read_frames(
    views: Iterable[FeatureView], project: Project, lake: Lake, start: datetime, end: datetime, grid: timedelta
) -> dict[str, pl.DataFrame]:
    """The columns of raw tables that these views need for rows in [start, end), by name, each table read once.

    Raises:
        MissingHistory: a table does not reach back as far as the windows do.
    """
    needed: dict[str, timedelta] = {}
    columns: dict[str, set[str]] = {}
    for view in views:
        for table in view.sources:
            needed[table] = max(history_needed(view, grid), needed.get(table, timedelta(0)))
            columns.setdefault(table, set()).update(_columns_read(view, table, project))
    return {
        table: _read(table, project, lake, start - history, end, columns[table]) for table, history in needed.items()
    }


def _columns_read(view: FeatureView, table: str, project: Project) -> set[str]:
    if table == view.source and not view.key:
        return {*project.tables[table].columns}  # without a key, rows of the same moment stand in the order of them all
    return {column.name for column in view_columns(view, project.tables) if column.table == table}


def _read(table: str, project: Project, lake: Lake, start: datetime, end: datetime, needed: set[str]) -> pl.DataFrame:
    columns = [name for name in project.tables[table].columns if name in needed]
    if not project.tables[table].partitioned:
        return lake.read(f"raw/{table}").select(columns)
    first = max(day_of(start, project.timezone), project.starts)
    # Rows known at the very end belong to the next day's partition and to the next range.
    last = day_of(end, project.timezone)
    days = lake.days(f"raw/{table}")
    if not days or min(days) > first + timedelta(days=1):
        reached = min(days) if days else "no day at all"
        raise MissingHistory(
            f"raw/{table} begins with {reached}, but its features look back to {first}; materialize raw/{table} from "
            f"{first} on first"
        )
    return lake.read(f"raw/{table}", first=first, last=last).select(columns)


def rows_of_days(
    view: FeatureView, project: Project, lake: Lake, first: date, last: date, grid: timedelta
) -> pl.DataFrame:
    """The view's rows of the local days [first, last], computed from the raw tables, with their day."""
    start, end = day_start(first, project.timezone), day_start(last + timedelta(days=1), project.timezone)
    frames = read_frames([view], project, lake, start, end, grid)
    return dated(feature_rows(view, frames, start, end, grid), project.timezone)


def rows_of_reference(view: FeatureView, project: Project, lake: Lake, now: datetime, grid: timedelta) -> pl.DataFrame:
    """All rows of a view over a reference table."""
    rows = lake.read(f"raw/{view.source}")
    start = rows[KNOWN_AT].min()
    begins = start if isinstance(start, datetime) else now
    return dated(feature_rows(view, {view.source: rows}, begins, now + grid, grid), project.timezone)


def dated(rows: pl.DataFrame, timezone: str) -> pl.DataFrame:
    """The rows with the local day of ``as_of``, by which the table is partitioned."""
    return rows.with_columns(pl.col(AS_OF).dt.convert_time_zone(timezone).dt.date().alias(PARTITION))


def recall_needed(view: FeatureView, grid: timedelta) -> timedelta | None:
    """How far back a single value can depend on rows; ``None`` if on any row ever."""
    if any(isinstance(feature, Latest) for feature in view.features):
        return view.online_for
    return history_needed(view, grid)


def read_for_recall(
    views: Iterable[FeatureView], project: Project, lake: Lake, start: datetime, end: datetime, grid: timedelta
) -> dict[str, pl.DataFrame]:
    """The raw tables that these views need for values at any moment in [start, end), by name."""
    frames: dict[str, pl.DataFrame] = {}
    first: dict[str, date] = {}
    for view in views:
        recall = recall_needed(view, grid)
        day = project.starts if recall is None else max(day_of(start - recall, project.timezone), project.starts)
        for table in view.sources:
            first[table] = min(day, first.get(table, day))
    for table, day in first.items():
        is_partitioned = project.tables[table].partitioned
        last = day_of(end, project.timezone)
        frames[table] = lake.read(f"raw/{table}", first=day, last=last) if is_partitioned else lake.read(f"raw/{table}")
    return frames
