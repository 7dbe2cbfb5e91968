"""A year of a large raw table, and how much memory a backfill of it holds: `python -m` this file with its folder."""

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from ml_platform.features.backfill import Backfill
from ml_platform.features.refresh import rows_of_days
from ml_platform.spec import KNOWN_AT, Entity, FeatureView, Project, SourceTable, Window
from ml_platform.spec.calendar import days_between
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.tiles import SqliteTiles

FIRST, LAST = date(2023, 1, 1), date(2023, 12, 31)
A_DAY = 2880  # every 30 seconds: a million rows a year
_LINES = 40
_HOUR = timedelta(hours=1)
_VIEW = FeatureView(
    name="lines",
    source="events",
    key=("id",),
    entities=(Entity(name="line", dtype="int64"),),
    description="Means and counts of a line.",
    features=(Window("value", "mean", over=(_HOUR, 24 * _HOUR)), Window("value", "count", over=(24 * _HOUR,))),
)
_TABLE = SourceTable(
    name="events",
    read=lambda start, end: pl.DataFrame(),
    columns={"id": pl.Int64, "line": pl.Int64, "value": pl.Float64, KNOWN_AT: pl.Datetime("us", "UTC")},
    key=("id",),
    description="",
    known_at_source="",
)
_PROJECT = Project(
    name="large", features="nothing", timezone="UTC", starts=FIRST, ready_from=FIRST, serves_from=LAST,
    replay_until=LAST, tables={"events": _TABLE}, views={"lines": _VIEW},
)  # fmt: skip


def fill(folder: Path) -> Lake:
    """Evenly through the year, month by month."""
    lake, days = Lake(str(folder / "lake")), days_between(FIRST, LAST)
    for month in range(1, 13):
        some = [day for day in days if day.month == month]
        number = np.arange(A_DAY * len(some)) + A_DAY * (some[0] - FIRST).days
        since = pl.duration(microseconds=pl.Series(number) * (86_400_000_000 // A_DAY))
        columns = {"id": number, "line": number * 7919 % _LINES, "value": number % 1013 / 7}
        rows = pl.DataFrame(columns).with_columns((pl.lit(datetime(2023, 1, 1, tzinfo=UTC)) + since).alias(KNOWN_AT))
        lake.replace("raw/events", rows.with_columns(pl.col(KNOWN_AT).dt.date().alias(PARTITION)), some)
    return lake


def peak() -> float:
    """MiB of resident memory, the most that this program ever held (``getrusage`` also counts who started it)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(folder: Path) -> dict[str, float]:
    """The peaks at the start, after three months, after twelve, and after what twelve take at once."""
    lake = Lake(str(folder / "lake"))
    peaks = {"start": peak()}
    for name, last in (("three", date(2023, 3, 31)), ("twelve", LAST)):
        work = Backfill(
            project=_PROJECT,
            lake=lake,
            online=OnlineStore(folder / "online.db", "large"),
            tiles=SqliteTiles(folder / "live.db"),
            record=folder / "backfill",
            grid=_HOUR,
            now=datetime(2024, 1, 1, tzinfo=UTC),
        )
        for piece in work.plan(["lines"], None, last):
            work.make(piece)
            work.finish(piece)
        peaks[name] = peak()
    at_once = rows_of_days(_VIEW, _PROJECT, lake, FIRST, LAST, _HOUR)
    return {**peaks, "at_once": peak(), "rows": at_once.height, "rows_made": lake.count("features/lines")}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]))))
