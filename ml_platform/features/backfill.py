"""Feature tables made anew over any range: a month a piece, in bounded memory, going on after any end.

What is finished is known day by day: a day is finished while the view's declaration, the files of every raw day that
it looks back on, and the files of its own rows are those of when it was made. So ranges may overlap, a new or corrected
raw day is noticed by itself, and a record that was lost costs time and nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import polars as pl

from ml_platform.features.follow import follow_days
from ml_platform.features.live_view import KEPT_BEHIND
from ml_platform.features.refresh import is_daily, rows_of_days, rows_of_reference, table_name
from ml_platform.features.windows import history_needed
from ml_platform.sources.columns import refuse_use
from ml_platform.spec import KNOWN_AT, FeatureView, HomeDamaged, MissingHistory, PlatformError, Project, UnknownName
from ml_platform.spec.calendar import day_of, day_start, days_between
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.spec.lineage import view_columns
from ml_platform.stores.delta import Lake
from ml_platform.stores.home import read_json, write_json
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.tiles import TileStore

_A_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)
_WHOLE = "whole"  # stands for the day in the record of a view over a reference table
_SHOWN = 8  # missing days that a message names; a list of hundreds hides the sentence
Files = Mapping[date | None, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive days of one calendar month (none: a reference view, whole), with the print of what each hangs on."""

    view: FeatureView
    days: tuple[date, ...]
    inputs: Mapping[str, str]

    def __str__(self) -> str:
        """The view and its days."""
        return f"{self.view.name} {_span(self.days)}" if self.days else f"{self.view.name}, the whole table"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a piece wrote: rows in the lake, entities to the online store, tiles of live windows that changed."""

    rows: int
    published: int
    tiles: int


def stale_days(view: FeatureView, project: Project, corrected: date, grid: timedelta) -> list[date]:
    """Every day whose rows are computed from the raw day ``corrected``: it and those whose windows reach back to it.

    As many as are read with it, so up to two more than the lookback: rows on the grid's next step, and
    what closes a fact a day early, count as well.
    """
    end = day_start(corrected + _A_DAY, project.timezone)
    return days_between(corrected, day_of(end + history_needed(view, grid) - _TICK, project.timezone))


def by_month(days: Iterable[date]) -> list[tuple[date, ...]]:
    """The days in calendar months, each from its first to its last one without a gap."""
    months = (list(month) for _, month in groupby(sorted(days), key=lambda day: (day.year, day.month)))
    return [tuple(days_between(month[0], month[-1])) for month in months]


def summary(pieces: Sequence[Piece]) -> str:
    """What was made, in one sentence a view."""
    if not pieces:
        return (
            "nothing is left to do: these days' rows are those of the declarations and raw tables as they stand "
            "(--again makes them anew)"
        )
    of_view: dict[str, list[date]] = {}
    for piece in pieces:
        of_view.setdefault(piece.view.name, []).extend(piece.days)
    return "\n".join(
        f"made {name}: {len(days)} days, {min(days)} to {max(days)}" if days else f"made {name}: the whole table"
        for name, days in of_view.items()
    )


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """One installation's feature tables, to be made anew as of ``now`` (UTC); days that are not closed by then wait.

    record: the folder that remembers what is finished, a file a view.
    """

    project: Project
    lake: Lake
    online: OnlineStore
    tiles: TileStore
    record: Path
    grid: timedelta
    now: datetime
    _files: dict[str, Files] = field(default_factory=dict)

    def plan(
        self, views: Sequence[str], first: date | None = None, last: date | None = None, *, again: bool = False
    ) -> list[Piece]:
        """What is left to do for these views' days [first, last] (by default all days that their raw tables hold).

        A reference view is made whole, whatever the days. again: forget that these days are finished.

        Raises:
            UnknownName: there is no such view.
            PlatformError: ``first`` is after ``last``.
            MissingHistory: days lie outside the data, or raw days that they need are missing. Nothing is written then.
            ColumnRefused: a column that a view reads is refused on one of the days; nothing is written.
        """
        if first and last and first > last:
            raise PlatformError(f"--from {first} is after --to {last}; exchange them")
        self._files.clear()
        wanted: list[tuple[FeatureView, list[date]]] = []
        for view in self._views(views):
            days = self._days(view, first, last) if is_daily(view, self.project) else []
            self._refuse_gaps(view, days)
            wanted.append((view, days))
        return self._left(wanted, again)

    def plan_after_correction(
        self, corrected: date, views: Sequence[str] = (), tables: Sequence[str] = (), *, again: bool = False
    ) -> list[Piece]:
        """What is left to do since these raw tables' day was corrected: all that look back on it, as far as held.

        views, tables: all daily ones if none are named.

        Raises:
            UnknownName: there is no such view or table.
            MissingHistory: no raw table holds the day, or raw days that the computation needs are missing.
        """
        for table in tables:
            if table not in self.project.tables:
                raise UnknownName("source table", table, self.project.tables)
        self._files.clear()
        wanted: list[tuple[FeatureView, list[date]]] = []
        for view in self._views(views or list(self.project.views)):
            if not is_daily(view, self.project) or (tables and not set(tables) & set(view.sources)):
                continue
            low, high = self._held(view)
            if not low <= corrected <= high:
                raise MissingHistory(_outside(view, corrected, low, high))
            days = [day for day in stale_days(view, self.project, corrected, self.grid) if day <= high]
            self._refuse_gaps(view, days)
            wanted.append((view, days))
        return self._left(wanted, again)

    def make(self, piece: Piece) -> Made:
        """Compute the piece and put it in place of what stood there, as the view's asset does; remember it at last.

        A kill before that makes the piece be done again, with the same outcome.
        """
        view, days = piece.view, piece.days
        rows = self._rows(view, days) if days else self._reference(view)
        self.lake.replace(table_name(view), rows, days or None)
        published = self.online.publish(view, rows, self.now)
        return Made(rows=rows.height, published=published, tiles=self._follow(view, days) if days else 0)

    def finish(self, piece: Piece) -> None:
        """Remember durably that the piece was made (after whatever else is to be told of it)."""
        output = _days_prints(self.lake.files(table_name(piece.view)), piece.days)
        finished = self._finished(piece.view)
        finished |= {name: [print_, output[name]] for name, print_ in piece.inputs.items()}
        write_json(self._record_of(piece.view), {"finished": finished})

    def _rows(self, view: FeatureView, days: Sequence[date]) -> pl.DataFrame:
        # A stored newest value has no window that says how far to look back for the one before: where it stays the
        # same after days without a row, a run over one day writes it again and a run over all these days does not.
        spans = [(days[0], days[-1])] if view.is_live else [(day, day) for day in days]
        return pl.concat(rows_of_days(view, self.project, self.lake, *span, self.grid) for span in spans)

    def _reference(self, view: FeatureView) -> pl.DataFrame:
        return rows_of_reference(view, self.project, self.lake, self.now, self.grid)

    # What is asked for

    def _views(self, names: Sequence[str]) -> list[FeatureView]:
        for name in names:
            if name in self.project.request_views:
                raise PlatformError(
                    f"{name} is computed when it is asked, so there is nothing to make anew; leave it out"
                )
            if name not in self.project.views:
                raise UnknownName("feature view", name, self.project.views)
        return [self.project.views[name] for name in dict.fromkeys(names)]

    def _days(self, view: FeatureView, first: date | None, last: date | None) -> list[date]:
        low, high = self._held(view)
        for asked in (first, last):
            if asked and not low <= asked <= high:
                raise MissingHistory(_outside(view, asked, low, high))
        return days_between(first or low, last or high)

    def _held(self, view: FeatureView) -> tuple[date, date]:
        """First and last closed day that all of the view's raw tables hold, but for those that may be empty."""
        held: list[tuple[date, date]] = []
        closed = day_of(self.now, self.project.timezone) - _A_DAY
        for table in self._without_gaps(view):
            days = [day for day in self._raw(table) if day is not None and day <= closed]
            if not days:
                raise MissingHistory(
                    f"raw/{table}, which view {view.name} is computed from, holds no day that had ended by {closed}; "
                    f"materialize raw/{table} first, or run `ml-platform run`"
                )
            held.append((min(days), max(days)))
        return max(low for low, _ in held), min(high for _, high in held)

    def _without_gaps(self, view: FeatureView) -> list[str]:
        daily = [table for table in view.sources if self.project.tables[table].partitioned]
        return [table for table in daily if not self.project.tables[table].may_be_empty] or [view.source]

    def _refuse_gaps(self, view: FeatureView, days: Sequence[date]) -> None:
        """As ``rows_of_days``, and for every day that is read: the oldest one may be missing, it counts for a part.

        Nor is a day made of columns that its contract refused.
        """
        daily = {name: table.partitioned for name, table in self.project.tables.items()}
        named = f"features/{view.name}" + (f" of {_span(days)}" if days else "")
        refuse_use(self.lake, named, view_columns(view, self.project.tables), days, daily)
        if not days:
            return
        needed = days_between(self._reads_from(view, days[0]), days[-1])
        needed = needed[1:] if needed[0] < days[0] else needed
        for table in self._without_gaps(view):
            if self.project.tables[table].may_be_empty:
                continue
            missing = [day for day in needed if day not in self._raw(table)]
            if missing:
                shown = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
                whole = days_between(missing[-1] + _A_DAY, days[-1])
                later = [day for day in whole if self._reads_from(view, day) >= missing[-1]]
                other = f", or begin with --from {later[0]}" if later else ""
                raise MissingHistory(
                    f"raw/{table} lacks {len(missing)} of the days that {view.name} from {days[0]} to {days[-1]} is "
                    f"computed from ({shown}); nothing was written. Materialize raw/{table} of these days first{other} "
                    f"(a table whose source may give nothing for a day is declared with may_be_empty=True)"
                )

    def _reads_from(self, view: FeatureView, day: date) -> date:
        start = day_start(day, self.project.timezone) - history_needed(view, self.grid)
        return max(day_of(start, self.project.timezone), self.project.starts)

    # What is left of it

    def _left(self, wanted: Sequence[tuple[FeatureView, list[date]]], again: bool) -> list[Piece]:
        pieces: list[Piece] = []
        for view, days in wanted:
            inputs = self._inputs(view, days)
            if again:
                self._forget(view, inputs)
            output = _days_prints(self.lake.files(table_name(view)), days)
            finished = self._finished(view)
            left = {name for name, print_ in inputs.items() if finished.get(name) != [print_, output[name]]}
            months = by_month(day for day in days if str(day) in left) if days else [()] if left else []
            pieces += [
                Piece(view=view, days=month, inputs={name: inputs[name] for name in _names(month)}) for month in months
            ]
        return pieces

    def _inputs(self, view: FeatureView, days: Sequence[date]) -> dict[str, str]:
        """For each day the print of all that its rows hang on. Days after it are read, but change nothing in it."""
        declared = fingerprint(view, self.project.timezone, self.grid)
        if not days:
            raw = self._raw(view.source).get(None, ())
            return {_WHOLE: _print(declared, *raw, str(self._known_by_now(view)))}
        of_day = {
            (table, day): _print(*names) for table in view.sources for day, names in self._raw(table).items() if names
        }
        return {
            str(day): _print(
                declared,
                *(of_day.get((table, None), "") for table in view.sources),
                *(
                    f"{table} {read} {of_day.get((table, read), '')}"
                    for table in view.sources
                    for read in days_between(self._reads_from(view, day), day)
                ),
            )
            for day in days
        }

    def _known_by_now(self, view: FeatureView) -> int:
        """How many rows of a reference table count already: more may by a later run, without a new file."""
        known = self.lake.scan(f"raw/{view.source}").filter(pl.col(KNOWN_AT) < self.now + self.grid)
        return int(known.select(pl.len()).collect().item())

    def _raw(self, table: str) -> Files:
        """Listed once a plan, before anything is read: what is written after that is noticed by the next one."""
        if table not in self._files:
            self._files[table] = self.lake.files(f"raw/{table}")
        return self._files[table]

    def _follow(self, view: FeatureView, days: Sequence[date]) -> int:
        """The live windows look back on the newest days only."""
        newest = self._held(view)[1]
        end = day_start(newest + _A_DAY, self.project.timezone)
        if day_start(days[-1] + _A_DAY, self.project.timezone) <= end - KEPT_BEHIND - view.lookback:
            return 0
        return follow_days(view, self.project, self.lake, self.tiles, days_between(days[0], newest), self.now)

    # The record

    def _record_of(self, view: FeatureView) -> Path:
        return self.record / f"{view.name}.json"

    def _finished(self, view: FeatureView) -> dict[str, list[str]]:
        path = self._record_of(view)
        if not path.exists():
            return {}
        finished = read_json(path).get("finished")
        if not isinstance(finished, dict):
            raise HomeDamaged(f"{path} does not hold a backfill's record; delete this file and run again")
        return finished

    def _forget(self, view: FeatureView, names: Iterable[str]) -> None:
        forgotten = set(names)
        kept = {name: prints for name, prints in self._finished(view).items() if name not in forgotten}
        write_json(self._record_of(view), {"finished": kept})


def _names(days: Sequence[date]) -> list[str]:
    return [str(day) for day in days] or [_WHOLE]


def _days_prints(files: Files, days: Sequence[date]) -> dict[str, str]:
    if not days:
        return {_WHOLE: _print(*files.get(None, ()))}
    return {str(day): _print(*files.get(day, ())) for day in days}


def _print(*words: str) -> str:
    return sha256("\n".join(words).encode()).hexdigest()[:16]


def _span(days: Sequence[date]) -> str:
    return f"{days[0]}" if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _outside(view: FeatureView, asked: date, low: date, high: date) -> str:
    tables = " and ".join(f"raw/{table}" for table in view.sources)
    return (
        f"{asked} is outside the days that {view.name} can be made of: closed and held by {tables} are {low} to "
        f"{high}; choose days among these, or materialize the raw tables first"
    )
