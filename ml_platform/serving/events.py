"""Events posted to the service: strict rows of raw tables, judged by their contract, applied to the online features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn

import polars as pl

from ml_platform.features.corrections import newest
from ml_platform.features.follow import followed
from ml_platform.features.live import LiveViews
from ml_platform.features.live_view import micros
from ml_platform.features.live_write import Evaluated
from ml_platform.features.windows import AS_OF
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.requests import check_moment
from ml_platform.sources.admission import Admission, Admit, everything
from ml_platform.sources.contract import all_hold, broken_rules, conditions
from ml_platform.sources.ingest import read_references
from ml_platform.spec import KNOWN_AT, FeatureView, Latest, Project, RequestRefused, SourceTable, UnknownName
from ml_platform.spec.features import FIXED_POINT
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import forgotten_in
from ml_platform.stores.online import Online, online_store
from ml_platform.stores.tiles_redis import tile_store

_PYTHON: Mapping[type[pl.DataType], type] = {
    **dict.fromkeys((pl.Int8, pl.Int16, pl.Int32, pl.Int64), int),
    pl.Float32: float,
    pl.Float64: float,
    pl.Boolean: bool,
    pl.Datetime: datetime,
}
_BEYOND: Mapping[type[pl.DataType], int] = {pl.Int8: 2**7, pl.Int16: 2**15, pl.Int32: 2**31, pl.Int64: 2**63}
# What a row that looked right can still raise where it is applied: numbers whose sums do not fit.
_FAULTS = (ArithmeticError, ValueError, pl.exceptions.PolarsError)
_UTC_TIME = pl.Datetime("us", "UTC")
_PLACE = "_place"  # a row's number in its batch
_LARGEST_FLOAT = 2**63 / FIXED_POINT  # sums are taken in whole numbers of 64 bits


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A row that was not applied: which one of the batch, and the rules of its contract that it broke.

    forgotten: it holds what was forgotten here, so that it may not be kept anywhere, not even among what was set aside.
    """

    row: int
    reason: str
    forgotten: bool = False


FORGOTTEN = "holds what was forgotten here"


class RowReader:
    """Strict reading of one table's rows; every refusal names the column."""

    def __init__(self, table: SourceTable, times: tuple[datetime, datetime]) -> None:
        """``times``: earliest and latest ``known_at`` that is believed."""
        self.table, self.times = table, times
        self.columns = {name: pl.Series(dtype=dtype).dtype for name, dtype in table.columns.items()}
        self._never_null = (*table.key, KNOWN_AT)

    def read(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The row's values in the order of the columns.

        Raises:
            RequestRefused: a column missing, unknown or of a wrong type; the key or ``known_at`` null; in the future.
        """
        if row.keys() != self.columns.keys():
            missing, unknown = sorted(self.columns.keys() - row.keys()), sorted(row.keys() - self.columns.keys())
            wrong = [f"missing {', '.join(missing)}"] if missing else []
            wrong += [f"unknown {', '.join(name[:40] for name in unknown)}"] if unknown else []
            raise RequestRefused(f"{where}: {'; '.join(wrong)}; the columns are {', '.join(self.columns)}")
        for name in self._never_null:
            if row[name] is None:
                raise RequestRefused(f"{where}, column {name!r}: is null; an event needs its key and its time")
        values = {name: _value(where, name, row[name], dtype) for name, dtype in self.columns.items()}
        if not self.times[0] <= values[KNOWN_AT] <= self.times[1]:
            check_moment(row[KNOWN_AT], f"{where}, column {KNOWN_AT!r}", *self.times)
        return values

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """Rows that ``read`` gave, as a frame."""
        listed = zip(*(row.values() for row in rows), strict=True) if rows else [()] * len(self.columns)
        columns = zip(self.columns.items(), listed, strict=True)
        return pl.DataFrame([_series(name, values, dtype) for (name, dtype), values in columns])


def _series(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    if dtype == _UTC_TIME:  # Polars takes integers several times as fast as moments with a zone
        return pl.Series(name, [None if value is None else micros(value) for value in values], pl.Int64).cast(dtype)
    return pl.Series(name, values, dtype)


def rows_of(table: SourceTable, rows: Sequence[Mapping[str, Any]], times: tuple[datetime, datetime]) -> pl.DataFrame:
    """The rows as a frame with the table's columns.

    times: earliest and latest ``known_at`` that is believed.

    Raises:
        RequestRefused: a row that is none of the table's; names row and column.
    """
    reader = RowReader(table, times)
    return reader.frame([reader.read(row, f"{table.name}, row {number}") for number, row in enumerate(rows)])


def _value(where: str, name: str, value: Any, dtype: pl.DataType) -> Any:
    if value is None:
        return None
    wanted = _PYTHON.get(type(dtype), str)
    if wanted is datetime:
        return _moment(where, name, value)
    if wanted is float:
        fits = type(value) in (int, float) and abs(value) < _LARGEST_FLOAT  # NaN is not smaller, either
        return float(value) if fits else _refuse(where, name, value, f"a number of the type {dtype}")
    # a Boolean is a whole number for Python, but not for us
    beyond = _BEYOND.get(type(dtype))
    fits = type(value) is wanted
    if not fits or (beyond is not None and not -beyond <= value < beyond):
        _refuse(where, name, value, f"of the type {dtype}")
    return value


def _moment(where: str, name: str, value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        _refuse(where, name, value, "an ISO 8601 time")
    if moment.tzinfo is None:
        raise RequestRefused(f"{where}, column {name!r}: {value!r} has no time zone; write an offset")
    return moment


def _refuse(where: str, name: str, value: Any, wanted: str) -> NoReturn:
    raise RequestRefused(f"{where}, column {name!r}: {str(value)[:40]!r} is not {wanted}")


def judged(table: SourceTable, rows: pl.DataFrame, holds: Mapping[str, pl.Expr]) -> tuple[pl.DataFrame, list[SetAside]]:
    """The rows that break no rule, and the others with their reasons; ``holds`` as ``contract.conditions`` made it.

    One that would stop the table is set aside, too: the rows beside it are other people's events.
    """
    if all_hold(table, rows, holds):
        return rows, []
    flags = broken_rules(table, rows, holds)
    reasons = [", ".join(name for name, broken in flags.items() if broken[n]) for n in range(rows.height)]
    aside = [SetAside(row=n, reason=reason) for n, reason in enumerate(reasons) if reason]
    return rows.filter(pl.Series([not reason for reason in reasons], dtype=pl.Boolean)), aside


class Ingestor:
    """Judges rows of raw tables and applies the good ones to everything that follows them online.

    It is the consumer of a stream of events, whoever reads that: the service, a command or the replay.
    """

    def __init__(
        self, project: Project, live: LiveViews, online: Online, lake: Lake, admit: Admit = everything
    ) -> None:
        """``live`` holds the windows, ``online`` the newest values of the other views; ``admit`` leaves out what was
        forgotten."""
        self.project, self.live, self.online, self.lake = project, live, online, lake
        self.admit = admit
        self._stored = [
            view for view in project.views.values() if not view.is_live and project.tables[view.source].partitioned
        ]
        self._rules: dict[str, Mapping[str, pl.Expr]] = {}

    @classmethod
    def open(cls, profile: Profile) -> "Ingestor":
        """With the stores of the profile."""
        project = load_project(profile.project)
        tiles = tile_store(profile.redis_url, profile.live_path, project.name)
        online = online_store(profile.online_address, project.name)
        lake = Lake(profile.lake, profile.storage_options)
        live = followed(project, tiles, Clock(profile.clock_path).now)
        return cls(project, live, online, lake, Admission(project, forgotten_in(profile.home)))

    def table(self, name: str) -> SourceTable:
        """The declared table of events.

        Raises:
            UnknownName: there is none, or it is a reference table, which is read whole and has no events.
        """
        tables = {name: table for name, table in self.project.tables.items() if table.partitioned}
        if name not in tables:
            raise UnknownName("table of events", name, tables)
        return tables[name]

    def replaces_values(self, name: str) -> bool:
        """Whether rows of the table replace stored values, which then are not as of an earlier moment any more."""
        return any(view.source == name for view in self._stored)

    def apply(self, name: str, rows: pl.DataFrame) -> list[SetAside]:
        """Apply the rows that keep their contract and can be; returns the others. A second time changes nothing.

        Raises:
            MissingHistory: a table that a rule refers to was never written.
        """
        table = self.table(name)
        if name not in self._rules:
            self._rules[name] = conditions(table, read_references(table, self.lake))
        if self.admit(table, rows).height == rows.height:
            return self._apply(table, rows, 0)
        kept = self.admit(table, rows.with_row_index(_PLACE))
        places = kept[_PLACE].to_list()
        left_out = sorted(set(range(rows.height)) - set(places))
        aside = [replace(one, row=places[one.row]) for one in self._apply(table, kept.drop(_PLACE), 0)]
        return [*aside, *(SetAside(row=row, reason=FORGOTTEN, forgotten=True) for row in left_out)]

    def _apply(self, table: SourceTable, rows: pl.DataFrame, first: int) -> list[SetAside]:
        """``first``: the place of the first row among all."""
        good, aside = judged(table, rows, self._rules[table.name])
        try:
            self.apply_good(table.name, good)
        except _FAULTS as error:
            if rows.height == 1:
                return [SetAside(row=first, reason=f"cannot be applied ({type(error).__name__}: {error})")]
            half = rows.height // 2  # one bad row must not take the others with it
            return [*self._apply(table, rows[:half], first), *self._apply(table, rows[half:], first + half)]
        return [replace(one, row=first + one.row) for one in aside]

    def apply_good(self, name: str, rows: pl.DataFrame) -> None:
        """Apply rows that were judged already."""
        if rows.height:
            self.apply_prepared(self.prepare(name, rows))

    def prepare(self, name: str, rows: pl.DataFrame) -> "Prepared":
        """Evaluate rows that were judged already, to apply them at once or in parts."""
        numbered = rows.with_row_index(_PLACE)
        return Prepared(
            windows=self.live.evaluated(name, rows),
            newest=[(view, newest_values(view, numbered, _PLACE)) for view in self._stored if view.source == name],
        )

    def apply_prepared(self, rows: "Prepared") -> None:
        """Apply what ``prepare`` made."""
        self.live.write(rows.windows)
        for view, found in rows.newest:
            if found.height:
                self.online.publish(view, found.drop(_PLACE), found[AS_OF].max())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Prepared:
    """Rows of one table, evaluated for everything that follows them online."""

    windows: Evaluated
    newest: list[tuple[FeatureView, pl.DataFrame]]

    def part(self, first: int, end: int) -> "Prepared":
        """That of the rows at the places [first, end)."""
        inside = pl.col(_PLACE).is_between(first, end, closed="left")
        return Prepared(
            windows=self.windows.part(first, end), newest=[(view, found.filter(inside)) for view, found in self.newest]
        )


def newest_values(view: FeatureView, rows: pl.DataFrame, *kept: str) -> pl.DataFrame:
    """What each row makes of a view of newest values: entity columns, ``as_of``, the features, the columns ``kept``."""
    derived = newest(view, rows.with_columns(**view.derive))
    if view.where is not None:
        derived = derived.filter(view.where)
    named = pl.all_horizontal(pl.col(name).is_not_null() for name in view.entity_names)
    features = [
        pl.col(feature.column).cast(pl.Int64 if feature.value_type == "int64" else pl.Float64).alias(name)
        for feature in view.features
        if isinstance(feature, Latest)
        for name, _, _ in feature.features()
    ]
    as_of = pl.max_horizontal(view.time, KNOWN_AT).alias(AS_OF)
    return derived.filter(named).sort(KNOWN_AT, *view.key).select(*view.entity_names, as_of, *features, *kept)
