"""Every source table over the whole of a project's time, in memory: where the past is looked at without a lake."""

from datetime import UTC, date, datetime, timedelta

import polars as pl

from ml_platform.sources.contract import judge
from ml_platform.spec import Project
from ml_platform.spec.calendar import day_start

_ORIGIN_OF_TIME = datetime(1, 1, 2, tzinfo=UTC)  # a reference table is read from here on
_AROUND = timedelta(days=3)  # facts of the year's first and last events become known up to so long before or after


def read_whole(project: Project, until: date | None = None) -> dict[str, pl.DataFrame]:
    """Every source table by name, good rows only. until: the last day (default: the project's last).

    Raises:
        SourceError: a source could not be read, or its columns changed.
    """
    last = until or project.ends or project.replay_until
    start, end = day_start(project.starts, project.timezone) - _AROUND, day_start(last, project.timezone) + _AROUND
    read = {
        name: table.read(start if table.partitioned else _ORIGIN_OF_TIME, end) for name, table in project.tables.items()
    }
    return {name: judge(table, read[name], read).good for name, table in project.tables.items()}
