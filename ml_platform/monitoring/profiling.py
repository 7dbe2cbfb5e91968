"""Keeps the profiles of a table: each closed day counted once, all of them anew when their bins fit no more."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from ml_platform.monitoring.layouts import MOST_ROWS, RELEARN_DAYS, are_due, learn, may_crowd
from ml_platform.monitoring.profile import Layout, profile
from ml_platform.monitoring.profile_table import COLUMNS, histories, newest_layouts, table_of, to_rows
from ml_platform.spec import KNOWN_AT
from ml_platform.stores.delta import PARTITION, Lake

Read = Callable[[date], pl.DataFrame]  # a day's rows, in the columns that were there on that day
_LEARN_DAYS = 364  # the newest so many days are the reference that bins are learned from


def by_local_clock(rows: pl.DataFrame, timezone: str) -> pl.DataFrame:
    """Rows of a raw table with ``known_at`` by the local clock, as they are counted: summer time would move it."""
    return rows.with_columns(pl.col(KNOWN_AT).dt.convert_time_zone(timezone))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What was done: the profiles of the days that were asked for, and why all were counted anew, if they were."""

    rows: pl.DataFrame
    columns: int
    version: int
    relearned: str | None = None
    counted_anew: int = 0


def keep_profiles(
    lake: Lake, asset: Sequence[str], days: Sequence[date], read: Read, *, relearning: bool = True
) -> Kept:
    """Count these days of an asset's table (``("raw", "weather")``) and write their profiles.

    Doing it again, after a kill or a correction, leaves the same rows, unless bins were learned meanwhile.

    relearning: not of a table of which earlier days cannot be read any more; its bins are learned once.
    """
    table = table_of(asset)
    others = lake.days(table) - set(days)
    lately, fresh = _lately(lake, table, others), {day: read(day) for day in days}
    layouts, known = newest_layouts(lately), sorted(others | {day for day, rows in fresh.items() if rows.height})
    reason = _due(layouts, lately, len(known)) if known and (relearning or not layouts) else None
    if reason:
        return _count_all_anew(lake, table, known, days, read, layouts, reason)
    layouts += _of_new_columns(fresh.values(), layouts)
    rows = _profiles(fresh, layouts)
    lake.replace(table, rows, days)
    return Kept(rows=rows, columns=len(layouts), version=_version(layouts))


def profiles_by_day(rows: pl.DataFrame, days: pl.Series, layouts: Sequence[Layout] | None = None) -> pl.DataFrame:
    """The profiles of rows in memory as `drift.drift` takes them: the day of each row in ``days``, one row a column and
    day. layouts: the bins; by default those that all the rows give."""
    held = days.unique().sort().to_list()
    bins = learn(rows, days=max(1, len(held))) if layouts is None else layouts
    return _profiles({day: rows.filter(days == day) for day in held}, bins)


def _lately(lake: Lake, table: str, days: set[date]) -> pl.DataFrame:
    """The profiles of the newest four weeks of these days."""
    if not days:
        return pl.DataFrame(schema=dict(COLUMNS))
    first = max(days) - timedelta(days=RELEARN_DAYS - 1)
    return lake.read(table, first=first).filter(pl.col(PARTITION).is_in(list(days)))


def _version(layouts: Sequence[Layout]) -> int:
    return max((layout.version for layout in layouts), default=0)


def _due(layouts: Sequence[Layout], lately: pl.DataFrame, known: int) -> str | None:
    """Why bins are learned anew, if they are; see `layouts.are_due`."""
    if not may_crowd(layouts, known):
        return are_due(layouts, known, [])
    return are_due(layouts, known, [history.total() for history in histories(lately).values()])


def _of_new_columns(fresh: Iterable[pl.DataFrame], layouts: Sequence[Layout]) -> list[Layout]:
    """Bins of columns that were not there before, from their first day on."""
    known = {layout.column for layout in layouts}
    learned = max((layout.learned_days for layout in layouts), default=1)
    for rows in fresh:
        if rows.height and set(rows.columns) - known:
            return learn(rows, days=learned, version=max(1, _version(layouts)), leaving_out=[*known])
    return []


def _count_all_anew(
    lake: Lake, table: str, known: list[date], asked: Sequence[date], read: Read, before: Sequence[Layout], reason: str
) -> Kept:
    chosen = known[-_LEARN_DAYS:]
    most = max(1, MOST_ROWS // len(chosen))
    # Columns that came or went on the way are missing on the other days.
    reference = pl.concat((_spread(read(day), most) for day in chosen), how="diagonal_relaxed")
    layouts = learn(reference, days=len(known), version=1 + _version(before))
    days = sorted({*known, *asked})
    counted = pl.concat(_profiles({day: read(day)}, layouts) for day in days)
    lake.replace(table, counted, days)
    return Kept(
        rows=counted.filter(pl.col(PARTITION).is_in(list(asked))),
        columns=len(layouts),
        version=_version(layouts),
        relearned=reason,
        counted_anew=len(set(days) - set(asked)),
    )


def _spread(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    return rows.gather_every(max(1, -(-rows.height // most)))


def _profiles(by_day: Mapping[date, pl.DataFrame], layouts: Sequence[Layout]) -> pl.DataFrame:
    """Of each day, also of one without rows: that it was empty is known."""
    nothing = pl.DataFrame(schema=dict(COLUMNS))
    return pl.concat([nothing, *(to_rows(profile(rows, layouts), day) for day, rows in by_day.items())])
