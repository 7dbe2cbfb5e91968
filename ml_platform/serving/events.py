"""Events posted to the service: strict rows of raw tables, judged by their contract, applied to the online features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from ml_platform.features.live import LiveViews
from ml_platform.features.windows import AS_OF
from ml_platform.serving.requests import check_moment
from ml_platform.sources.contract import all_hold, broken_rules, conditions
from ml_platform.sources.ingest import read_references
from ml_platform.spec import KNOWN_AT, FeatureView, Latest, Project, RequestRefused, SourceTable, UnknownName
from ml_platform.stores.delta import Lake
from ml_platform.stores.online import Online

_PYTHON = {pl.String: str, pl.Int64: int, pl.Int8: int, pl.Int32: int, pl.Boolean: bool}


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A row that broke its table's contract: which one of the batch, and the rules."""

    row: int
    reason: str


def rows_of(table: SourceTable, rows: Sequence[Mapping[str, Any]], times: tuple[datetime, datetime]) -> pl.DataFrame:
    """The rows as a frame with the table's columns.

    times: earliest and latest ``known_at`` that is believed.

    Raises:
        RequestRefused: a column missing, unknown or of a wrong type; the key or ``known_at`` null, or in the future.
    """
    columns = {name: pl.Series(dtype=dtype).dtype for name, dtype in table.columns.items()}
    checked = []
    for number, row in enumerate(rows):
        where = f"{table.name}, row {number}"
        if row.keys() != columns.keys():
            missing, unknown = sorted(columns.keys() - row.keys()), sorted(row.keys() - columns.keys())
            wrong = [f"missing {', '.join(missing)}"] if missing else []
            wrong += [f"unknown {', '.join(name[:40] for name in unknown)}"] if unknown else []
            raise RequestRefused(f"{where}: {'; '.join(wrong)}; the columns are {', '.join(columns)}")
        for name in (*table.key, KNOWN_AT):
            if row[name] is None:
                raise RequestRefused(f"{where}, column {name!r}: is null; an event needs its key and its time")
        values = {name: _value(f"{where}, column {name!r}", value, columns[name]) for name, value in row.items()}
        check_moment(row[KNOWN_AT], f"{where}, column {KNOWN_AT!r}", *times)
        checked.append(values)
    return pl.DataFrame(checked, schema=columns, orient="row")


def _value(where: str, value: Any, dtype: pl.DataType) -> Any:
    if value is None:
        return None
    if isinstance(dtype, pl.Datetime):
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError) as error:
            raise RequestRefused(f"{where}: {str(value)[:40]!r} is not an ISO 8601 time") from error
        if moment.tzinfo is None:
            raise RequestRefused(f"{where}: {value!r} has no time zone; write an offset")
        return moment
    if dtype.is_float():
        fits = isinstance(value, float | int) and not isinstance(value, bool)
        value = float(value) if fits else value
    else:
        wanted = _PYTHON.get(type(dtype), str)
        fits = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    if not fits:
        raise RequestRefused(f"{where}: {str(value)[:40]!r} is not of the type {dtype}")
    return value


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

    def __init__(self, project: Project, live: LiveViews, online: Online, lake: Lake) -> None:
        """``live`` holds the windows, ``online`` the newest values of the other views."""
        self.project, self.live, self.online, self.lake = project, live, online, lake
        self._stored = [
            view for view in project.views.values() if not view.is_live and project.tables[view.source].partitioned
        ]
        self._rules: dict[str, Mapping[str, pl.Expr]] = {}

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
        """Apply the rows that keep their contract, and return the others; a second delivery changes nothing.

        Raises:
            MissingHistory: a table that a rule refers to was never written.
        """
        table = self.table(name)
        if name not in self._rules:
            self._rules[name] = conditions(table, read_references(table, self.lake))
        good, aside = judged(table, rows, self._rules[name])
        self.apply_good(name, good)
        return aside

    def apply_good(self, name: str, rows: pl.DataFrame) -> None:
        """Apply rows that were judged already."""
        if rows.is_empty():
            return
        self.live.apply(name, rows)
        for view in self._stored:
            if view.source == name:
                found = newest_values(view, rows)
                self.online.publish(view, found, found[AS_OF].max())  # type: ignore[arg-type]


def newest_values(view: FeatureView, rows: pl.DataFrame) -> pl.DataFrame:
    """What each row makes of a view of newest values: entity columns, ``as_of``, the features."""
    derived = rows.with_columns(**view.derive)
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
    return derived.filter(named).sort(KNOWN_AT, *view.key).select(*view.entity_names, as_of, *features)
