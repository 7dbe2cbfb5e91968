"""Columns that must not be used though the rows hold: refused by themselves, day by day, while the rest goes on.

A rule that stops the table, or that more rows break than may be set aside, speaks of the columns that it looks at.
Where none of them makes the row what it is (the key, ``known_at``), the rows are written without the values of these
columns, and each column is marked for that day. What a refused column held is nowhere in ``raw``, so nothing can use it
by accident; what reads the column must not take the gap for a missing value either, and asks ``refuse_use``.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date

import polars as pl

from ml_platform.sources.contract import most_set_aside, schema_changes
from ml_platform.sources.observe import Finding
from ml_platform.sources.said import examples
from ml_platform.spec import KNOWN_AT, ColumnRefused, SchemaChanged, SourceTable, Verdict
from ml_platform.spec.lineage import ALL_COLUMNS, Column
from ml_platform.stores.delta import PARTITION, Lake

SCHEMA_RULE = "schema"
_PART = "part"
_WHOLE = pl.repeat(None, pl.len(), dtype=pl.Date).alias(_PART)  # a reference table is one part
_MARKS: Mapping[str, pl.DataType] = {
    PARTITION: pl.Date(), "column": pl.String(), "rule": pl.String(), "rows": pl.Int64(), "broken": pl.Int64(),
    "sentence": pl.String(),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A column of a raw table whose values of a day must not be used; ``day`` is ``None`` for a reference table.

    rule: the first rule that refused it. rows, broken: of the day, and how many of them break the rule. sentence: names
    rule and column and shows no value of any row; ``shown`` shows three rows.
    """

    column: str
    day: date | None
    rule: str
    rows: int
    broken: int
    sentence: str
    shown: str = ""


def refused_name(table: str) -> str:
    """Where the marks lie in the lake: one row a day and refused column."""
    return f"refused/{table}"


def row_columns(table: SourceTable) -> frozenset[str]:
    """The columns that make a row what it is: whoever cannot trust these has no rows at all."""
    return frozenset({*table.key, KNOWN_AT})


def conformed(
    table: SourceTable, rows: pl.DataFrame, days: Sequence[date | None]
) -> tuple[pl.DataFrame, list[Refusal], list[str]]:
    """The rows with exactly the declared columns; what was dropped or retyped is empty and refused for all these days.

    Returns:
        The rows, the refusals, and the names of columns that nobody declared: these are left out.

    Raises:
        SchemaChanged: the key or ``known_at`` is missing or of another type.
    """
    changes = schema_changes(table, rows.schema)
    if not changes:
        return rows.select(list(table.columns)), [], []
    if fatal := [said for name, said in changes.items() if name in row_columns(table)]:
        raise SchemaChanged(
            f"the source of raw/{table.name} changed: {'; '.join(fatal)}. Without it there are no rows, so nothing was "
            f"written; correct the reader, or the columns declared for {table.name!r} if the change is meant"
        )
    lost = {name: said for name, said in changes.items() if name in table.columns}
    held = [pl.lit(None, dtype).alias(name) if name in lost else pl.col(name) for name, dtype in table.columns.items()]
    refusals = [
        Refusal(
            column=name, day=day, rule=SCHEMA_RULE, rows=rows.height, broken=rows.height,
            sentence=_sentence(table, [name], day, said),
        )
        for name, said in lost.items()
        for day in days
    ]  # fmt: skip
    return rows.select(held), refusals, [name for name in changes if name not in table.columns]


def refused_columns(
    table: SourceTable, rows: pl.DataFrame, findings: Mapping[str, Finding], day: pl.Expr | None
) -> list[Refusal]:
    """Which columns the rules refuse on which days; none if a rule that stops the table refuses the batch anyway.

    A rule that holds, or stops, refuses the columns that it judges; so does one of which more rows are to be set aside
    than may be. One that holds and judges no columns, or such as make a row, refuses all of them (``ALL_COLUMNS``), and
    the rows stay. A rule over several columns refuses them all, except on a day on which one of them is refused by a
    rule of its own: then it cannot be judged, and that one explains it.

    rows, findings: as they were judged, in the same order.
    """
    parts = rows.select(_WHOLE if day is None else day.alias(_PART)).to_series()
    alone: dict[tuple[str, date | None], Refusal] = {}
    together: dict[tuple[str, date | None], Refusal] = {}
    for finding in sorted(findings.values(), key=lambda one: len(one.expectation.columns)):
        rule = finding.expectation
        columns = frozenset(rule.columns) & frozenset(table.columns)
        makes_rows = not columns or bool(columns & row_columns(table))
        for part, broken, count in _failing(table, finding, parts):
            if makes_rows and rule.action != "hold":
                return []
            if len(columns) > 1 and any((name, part) in alone for name in columns):
                continue
            names = [ALL_COLUMNS] if makes_rows else sorted(columns)
            refusal = _refusal(table, rows, finding, names, part, (broken, count), parts)
            target = alone if len(names) == 1 else together
            for name in names:
                target.setdefault((name, part), replace(refusal, column=name))
    return list({**together, **alone}.values())


def _refusal(
    table: SourceTable, rows: pl.DataFrame, finding: Finding, names: Sequence[str], part: date | None,
    counts: tuple[int, int], parts: pl.Series,
) -> Refusal:  # fmt: skip
    (broken, count), rule = counts, finding.expectation
    if finding.unexpected is None:
        seen = (finding.observed or {})[part if part is not None else 0]
        said, shown = f"breaks {rule.name} (found {seen.value})", ""
    else:
        said = f"{broken} of {count} rows break {rule.name}"
        shown = examples(table, rows.filter(finding.unexpected & _same(parts, part)), rule.columns)
    sentence = _sentence(table, names, part, said)
    return Refusal(column="", day=part, rule=rule.name, rows=count, broken=broken, sentence=sentence, shown=shown)


def _failing(table: SourceTable, finding: Finding, parts: pl.Series) -> Iterator[tuple[date | None, int, int]]:
    """The days that fail so that a column is refused: (day, rows that break the rule, rows)."""
    rule = finding.expectation
    if finding.success is not False or rule.action == "warn":
        return
    rows = dict(pl.DataFrame({_PART: parts}).group_by(_PART).len().iter_rows())
    if finding.unexpected is None:
        for part, seen in (finding.observed or {}).items():
            if not seen.success:
                day = part if isinstance(part, date) else None
                yield day, rows.get(day, 0), rows.get(day, 0)
        return
    counts = pl.DataFrame({_PART: parts, "broken": finding.unexpected}).group_by(_PART, maintain_order=True)
    for part, bad, count in counts.agg(pl.col("broken").sum(), pl.len()).iter_rows():
        allowed = most_set_aside(table, count) if rule.action == "quarantine" else _few_enough(finding, count)
        if bad > allowed:
            yield part, bad, count


def _few_enough(finding: Finding, count: int) -> float:
    """How many rows of a part may fail a rule that asks for most of them only: of those looked at, as in all parts."""
    looked_at = count * finding.considered / finding.rows if finding.rows else 0
    return looked_at * (1 - getattr(finding.expectation, "mostly", 1.0))


def _same(parts: pl.Series, part: date | None) -> pl.Series:
    return parts.is_null() if part is None else parts == part


def _sentence(table: SourceTable, columns: Sequence[str], day: date | None, said: str) -> str:
    named = " and ".join(str(Column("raw", table.name, "" if name == ALL_COLUMNS else name)) for name in columns)
    when = "" if day is None else f" of {day}"
    return f"{named}{when}: {said}"


def without(table: SourceTable, rows: pl.DataFrame, refusals: Collection[Refusal], day: pl.Expr | None) -> pl.DataFrame:
    """The rows without what is refused; where all columns are, they stay as they are, and whoever reads them asks."""
    days: dict[str, list[date]] = {}
    for refusal in refusals:
        if refusal.column != ALL_COLUMNS:
            days.setdefault(refusal.column, []).extend([refusal.day] if refusal.day else [])
    kept = {name: pl.lit(False) if day is None else ~day.is_in(found) for name, found in days.items()}
    return rows.with_columns(pl.when(kept[name]).then(pl.col(name)).alias(name) for name in kept)


def excused_by(table: SourceTable, refusals: Collection[Refusal]) -> dict[str, list[date | None]]:
    """Rule -> the days on which it is not asked: it refused what it judges, or a column that it reads is refused."""
    return {
        rule.name: [one.day for one in refusals if one.column in rule.reads or one.rule == rule.name]
        for rule in table.rules
    }


def columns_verdict(refusals: Collection[Refusal]) -> Verdict:
    """All refusals in one sentence."""
    if not refusals:
        return Verdict(state="pass", reason="no column is refused")
    names = list(dict.fromkeys(one.column for one in refusals))
    reason = f"{', '.join(names)} must not be used: {'; '.join(dict.fromkeys(one.sentence for one in refusals))}"
    return Verdict(state="fail", reason=reason, measures={"columns_refused": len(names)})


def write_marks(lake: Lake, table: SourceTable, refusals: Iterable[Refusal], days: Sequence[date] | None) -> None:
    """Make these the whole of what is refused on these days."""
    marks = mark_rows(refusals)
    if marks.height or lake.exists(refused_name(table.name)):
        lake.replace(refused_name(table.name), marks, days)


def mark_rows(refusals: Iterable[Refusal]) -> pl.DataFrame:
    """The marks as rows: ``known_date``, ``column``, ``rule``, ``rows``, ``broken``, ``sentence``."""
    told = [
        {PARTITION: one.day, **{name: asdict(one)[name] for name in _MARKS if name != PARTITION}} for one in refusals
    ]
    return pl.DataFrame(told, schema=dict(_MARKS)).sort(PARTITION, "column")


def marks_of(lake: Lake, table: str, days: Sequence[date] | None) -> list[Refusal]:
    """What is refused of a table on these days (``None``: of a reference table), as it stands in the lake."""
    name = refused_name(table)
    if not lake.exists(name):
        return []
    rows = lake.read(name, first=days[0], last=days[-1]) if days else lake.read(name)
    rows = rows.filter(pl.col(PARTITION).is_in(list(days))) if days else rows
    kept = rows.select(list(_MARKS)).sort(PARTITION, "column")
    return [Refusal(day=row.pop(PARTITION), **row) for row in kept.iter_rows(named=True)]


def refuse_use(
    lake: Lake, reader: str, columns: Iterable[Column], days: Sequence[date], partitioned: Mapping[str, bool]
) -> None:
    """Let nothing be made of refused columns.

    reader: what would be made, for the sentence. columns: raw columns that it is made of. days: for which days it is to
        be made; of a reference table whatever stands counts. partitioned: raw table -> whether it has days.

    Raises:
        ColumnRefused: one of them is refused on one of the days; names table, column, day, rule and what next.
    """
    used: dict[str, set[str]] = {}
    for column in columns:
        used.setdefault(column.table, set()).add(column.name)
    found = {
        one.sentence: table
        for table, names in sorted(used.items())
        for one in marks_of(lake, table, days if partitioned[table] else None)
        if one.column in names or one.column == ALL_COLUMNS
    }
    if found:
        tables = " and ".join(f"raw/{table}" for table in sorted(set(found.values())))
        raise ColumnRefused(
            f"{reader} stands still, since it reads what was refused: {'; '.join(found)}. What does not read it goes "
            f"on. Mend the source or the contract of {tables}, which is read again every day, or materialize it again: "
            f"then this catches up"
        )
