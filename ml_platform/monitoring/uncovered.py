"""What no drift policy covers: columns of raw tables are looked at all the same, and a sharp change asks a person.

Nobody declared what such a change means, so the rule is a coarse one: large, and odds six times the usual largest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from ml_platform.monitoring.drift import drift, nothing
from ml_platform.monitoring.drift_record import incident, models_behind, open_review
from ml_platform.monitoring.watched import read_profiles
from ml_platform.spec import DriftPolicy, Project, SharpRule, SourceTable
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import DRIFT

RULE = SharpRule(min_distance=0.2, odds=6.0)
MIN_ROWS = 20  # hourly reports of one place are 24 a day; what chance does to so few is in the usual distance, too
_LATELY = 7  # days of a range that are looked at: what moved in a history that is brought in asks nobody anything


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A column that moved sharply on a day. models: those whose inputs, questions or labels depend on it."""

    column: str
    day: date
    reason: str
    models: tuple[str, ...]


def uncovered(project: Project, table: SourceTable) -> list[str]:
    """The table's columns that no drift policy watches."""
    policies = [policy for policy in project.drift_policies.values() if policy.table == table.name]
    covered = {name for policy in policies for name in policy.columns or table.columns}
    return [name for name in table.columns if name not in covered]


def look(project: Project, lake: Lake, days: Sequence[date]) -> tuple[pl.DataFrame, list[Moved]]:
    """Rows of `drift.COLUMNS` about the uncovered columns on the newest of these days, with ``table`` and day, and
    those that moved sharply."""
    parts, moved = [_with_table(nothing(), "", days[0])], list[Moved]()
    for table in (table for table in project.tables.values() if table.partitioned):
        columns = uncovered(project, table)
        policy = DriftPolicy(table=table.name, columns=tuple(columns), sharp=RULE, min_rows=MIN_ROWS)
        for day in days[-_LATELY:] if columns else ():
            rows = drift(read_profiles(lake, ("raw", table.name), day, policy.seasons), day, policy)[1]
            parts.append(_with_table(rows.filter(pl.col("feature").is_in(columns)), table.name, day))
            moved += _moved(project, parts[-1])
    return pl.concat(parts), moved


def _with_table(rows: pl.DataFrame, table: str, day: date) -> pl.DataFrame:
    return rows.with_columns(pl.lit(table).alias("table"), pl.lit(day).alias(PARTITION))


def _moved(project: Project, rows: pl.DataFrame) -> Iterator[Moved]:
    for row in rows.filter(pl.col("verdict") == "fail").iter_rows(named=True):
        column = f"raw/{row['table']}.{row['feature']}"
        usual = f"{row['distance']:.2f}, usually at most {row['usual_maximum']:.2f}"
        reason = f"{row[PARTITION]}: {row['of']} of {column} moved sharply ({usual}), and no drift policy covers it"
        yield Moved(column=column, day=row[PARTITION], reason=reason, models=models_behind(project, column))


def ask(ledger: Ledger, moved: Sequence[Moved], at: datetime) -> list[Entry]:
    """Write down what moved, and open a review for each model behind it: one for each incident."""
    opened = []
    for one in moved:
        body = {"day": one.day.isoformat(), "service": "", "reason": one.reason}
        ledger.write(DRIFT, one.column, one.day.isoformat(), at, body)
        begun = incident(ledger, one.column, one.day)
        opened += [open_review(ledger, model, one.column, begun, one.day, one.reason, at) for model in one.models]
    return opened
