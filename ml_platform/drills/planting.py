"""A fault planted into what a source gives: what production's reader would be handed, and what would come of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import polars as pl

from ml_platform.drills.clean_year import CleanYear
from ml_platform.spec import KNOWN_AT, Fault, Planted, SourceError, SourceTable
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.spec.tables import Reader
from ml_platform.stores.delta import PARTITION

# So far a wrong clock may carry a row from where it belongs.
_SHIFT = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A fault and the local day on which it begins."""

    fault: Fault
    first: date
    seed: int

    @property
    def last(self) -> date:
        """The last day that it lasts, if nobody sees it."""
        return self.first + timedelta(days=self.fault.days - 1)

    def on(self, rows: pl.DataFrame, day: date) -> pl.DataFrame:
        """The rows of a day, wrong if the fault holds on it."""
        if self.fault.wrong is None or not self.first <= day <= self.last or rows.is_empty():
            return rows
        return self.fault.wrong(rows, Planted(day=(day - self.first).days, seed=self.seed))


def source_with(plant: Plant, table: SourceTable, timezone: str, now: datetime) -> SourceTable:
    """The table as its source answers at ``now`` with the fault in it: the same reader, asked in the same way."""
    return replace(table, read=_reader(plant, table, timezone, now))


def _reader(plant: Plant, table: SourceTable, timezone: str, now: datetime) -> Reader:
    def read(start: datetime, end: datetime) -> pl.DataFrame:
        if plant.fault.unreadable and start < day_start(plant.last + timedelta(days=1), timezone):
            raise SourceError(f"the source of raw/{table.name} does not answer")
        if not table.partitioned:
            return plant.on(table.read(start, end), plant.first)
        # What a wrong clock moves into the interval lies outside of it; what is not yet known, nobody has.
        rows = table.read(start - _SHIFT, min(end + _SHIFT, now + timedelta(microseconds=1)))
        return _joined(_wrong_by_day(plant, rows, timezone), start, end, now)

    return read


def _wrong_by_day(plant: Plant, rows: pl.DataFrame, timezone: str) -> list[tuple[date, pl.DataFrame, timedelta]]:
    """(day, its rows as they are given, how much later they come), in the order of the days."""
    day = pl.col(KNOWN_AT).dt.convert_time_zone(timezone).dt.date()
    parts = rows.with_columns(day.alias(PARTITION)).partition_by(PARTITION, as_dict=True, maintain_order=True)
    found = []
    for (each,), part in parts.items():
        late = plant.fault.late if plant.first <= each <= plant.last else timedelta(0)
        found.append((each, plant.on(part.drop(PARTITION), each), late))
    return found


def _joined(
    parts: list[tuple[date, pl.DataFrame, timedelta]], start: datetime, end: datetime, now: datetime
) -> pl.DataFrame:
    """What lies in the interval and has come by now. Days that hold none of it may be of other columns."""
    inside = pl.col(KNOWN_AT).is_between(start, end, closed="left")
    rows = [part.filter(inside, pl.col(KNOWN_AT) + late <= now) for _, part, late in parts]
    filled = [part for part in rows if part.height]
    if not filled:
        return rows[-1].clear() if rows else pl.DataFrame()
    return pl.concat(filled, how="diagonal_relaxed") if len(filled) > 1 else filled[0]


def unchecked(plant: Plant, year: CleanYear) -> dict[str, pl.DataFrame]:
    """The raw tables as they would be if nobody had looked: with all that the fault did while it lasts."""
    table = year.project.tables[plant.fault.table]
    rows = year.raw[table.name]
    if not table.partitioned:
        return {**year.raw, table.name: _conform(plant.on(rows, plant.first), table)}
    touched = pl.col(PARTITION).is_between(plant.first, plant.last)
    parts = [_of_day(plant, table, rows.filter(pl.col(PARTITION) == day), day) for day in _days(plant)]
    kept = rows.filter(~touched)
    return {**year.raw, table.name: pl.concat([kept, *parts]).sort(KNOWN_AT, *table.key)}


def _of_day(plant: Plant, table: SourceTable, rows: pl.DataFrame, day: date) -> pl.DataFrame:
    if plant.fault.unreadable:
        return rows.clear()
    wrong = _conform(plant.on(rows.drop(PARTITION), day), table)
    return wrong.with_columns(pl.col(KNOWN_AT) + plant.fault.late, pl.lit(day, pl.Date).alias(PARTITION))


def _days(plant: Plant) -> list[date]:
    return days_between(plant.first, plant.last)


def _conform(rows: pl.DataFrame, table: SourceTable) -> pl.DataFrame:
    """With the declared columns: what is missing or of another type is what somebody lenient would make of it."""
    return rows.select(
        pl.col(name).cast(dtype, strict=False) if name in rows.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in table.columns.items()
    )


def admitted(plant: Plant, year: CleanYear, let_in: Mapping[date, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The raw tables with what the contract let in on these days in place of the clean rows."""
    table = year.project.tables[plant.fault.table]
    if not table.partitioned:
        return {**year.raw, table.name: next(iter(let_in.values()))}
    rows = year.raw[table.name]
    kept = rows.filter(~pl.col(PARTITION).is_in(list(let_in)))
    return {**year.raw, table.name: pl.concat([kept, *let_in.values()]).sort(KNOWN_AT, *table.key)}
