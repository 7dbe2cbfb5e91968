"""A source table's contract applied to a batch: good rows, quarantined rows with reasons, a verdict a rule."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date

import polars as pl

from ml_platform.sources.observe import Finding, observe, without_parts
from ml_platform.sources.said import examples, verdict_of
from ml_platform.spec import KNOWN_AT, ContractBroken, DeclarationError, SchemaChanged, SourceTable, Verdict
from ml_platform.spec.expectations import Around, RowExpectation

REASON = "reason"
DUPLICATE = "duplicate_key"
_SHARE = "share_quarantined"


@dataclass(frozen=True, kw_only=True)
class Validated:
    """A batch, judged. Every row is in ``good`` or in ``quarantined`` (with ``reason``: all rules that it broke).

    findings: what each rule found, by its name. refusal: why the batch as a whole must not be used, or ``None``.
    """

    good: pl.DataFrame
    quarantined: pl.DataFrame
    verdicts: Mapping[str, Verdict]
    findings: Mapping[str, Finding]
    refusal: str | None


def apply_contract(table: SourceTable, rows: pl.DataFrame, references: Mapping[str, pl.DataFrame]) -> Validated:
    """Judge a whole batch and refuse it if the contract says so.

    Raises:
        SchemaChanged: columns are missing, new or of another type.
        ContractBroken: a stop rule failed, or more rows were set aside than allowed.
    """
    found = judge(table, rows, references, around=Around())
    if found.refusal:
        raise ContractBroken(found.refusal)
    return found


def judge(
    table: SourceTable,
    rows: pl.DataFrame,
    references: Mapping[str, pl.DataFrame],
    *,
    batch: pl.Expr | None = None,
    around: Around | None = None,
    excused: Mapping[str, Collection[date | None]] | None = None,
) -> Validated:
    """Judge every row by every rule; nothing is refused here.

    Of rows with the same key and ``known_at``, the first otherwise good one stays; one that became known later is a
    correction, and stays, too. ``batch`` names the part of the rows (a day) whose share of quarantined rows is judged,
    so that a bad day cannot hide among many good ones; one row alone never exceeds a share above zero.

    Args:
        table: the declaration.
        rows: the batch, with exactly the declared columns, in any order.
        references: raw tables that rules refer to, by name.
        batch: an expression over the columns; by default all rows are one part.
        around: earlier rows and when the parts ended, if the parts are there as a whole. Without it, rows of a part may
            be missing, and only rules that one row alone decides are judged.
        excused: rule -> the parts that it is not asked about; ``None`` where all rows are one part.

    Raises:
        SchemaChanged: columns are missing, new or of another type.
        DeclarationError: a rule cannot be evaluated.
    """
    rows = checked_schema(table, rows).sort(KNOWN_AT, *table.key, maintain_order=True)
    _refuse_shared_names(table)
    known = replace(around or Around(), references=references)
    found = observe(table.rules, rows, known, parts=batch, whole=around is not None, table=table.name)
    if excused:
        part = pl.Series([None] * rows.height) if batch is None else rows.select(batch).to_series()
        found = {name: without_parts(finding, excused.get(name, ()), part) for name, finding in found.items()}
    flags = _set_aside(found)
    bad = pl.select(pl.any_horizontal(*flags.values())).to_series() if flags else _nowhere(rows)
    flags[DUPLICATE] = _later_copies(table, rows, bad)
    bad = bad | flags[DUPLICATE]
    kept = rows.filter(bad) if bad.any() else rows.clear()  # mostly nothing is: then a reason need not be made
    reasons = reasons_of(flags).filter(bad) if kept.height else pl.Series([], dtype=pl.String)
    good, quarantined = rows.filter(~bad) if kept.height else rows, kept.with_columns(reasons.alias(REASON))
    if good.height + quarantined.height != rows.height:
        raise AssertionError(f"{table.name}: {rows.height} rows in, {good.height} + {quarantined.height} out")
    verdicts = {name: verdict_of(table, rows, finding) for name, finding in found.items()}
    verdicts[DUPLICATE] = _copies_verdict(table, rows, flags[DUPLICATE])
    stopping = [name for name, finding in found.items() if finding.expectation.action == "stop"]
    stopped = [verdicts[name].reason for name in stopping if verdicts[name].state == "fail"]
    share = _share_verdict(table, rows, bad, batch)
    verdicts[_SHARE] = share
    if share.state == "fail" and not stopped:
        stopped = [share.reason]
    return Validated(
        good=good,
        quarantined=quarantined,
        verdicts=verdicts,
        findings=found,
        refusal="; ".join(stopped) or None,
    )


def _set_aside(found: Mapping[str, Finding]) -> dict[str, pl.Series]:
    """Of each rule that keeps rows out, which; one that stops names the rows that broke it, too."""
    flags = {}
    for name, finding in found.items():
        keeps_out = finding.expectation.action in ("quarantine", "stop")
        if keeps_out and finding.success is False and finding.unexpected is not None:
            flags[name] = finding.unexpected
    return flags


def _refuse_shared_names(table: SourceTable) -> None:
    if len({rule.name for rule in table.rules}) != len(table.rules):
        raise DeclarationError(f"two rules of table {table.name!r} share a name; names are reasons, make them unique")


def checked_schema(table: SourceTable, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with their columns in declared order.

    Raises:
        SchemaChanged: columns are missing, new or of another type; near names are offered.
    """
    if changes := schema_changes(table, rows.schema):
        raise SchemaChanged(
            f"the source of raw/{table.name} changed: {'; '.join(changes.values())}. Nothing was written; correct the "
            f"reader, or the columns declared for {table.name!r} if the change is meant"
        )
    return rows.select(list(table.columns))


def schema_changes(table: SourceTable, found: pl.Schema) -> dict[str, str]:
    """Column -> in which way it is not as declared: missing (near names are offered), of another type, undeclared."""
    declared, changes = pl.Schema(table.columns), dict[str, str]()
    for name in declared.names():
        if name not in found:
            near = difflib.get_close_matches(name, [n for n in found if n not in declared], n=1, cutoff=0.5)
            changes[name] = f"{name} is missing" + (f" (renamed to {near[0]}?)" if near else "")
        elif found[name] != declared[name]:
            changes[name] = f"{name} is {found[name]} instead of {declared[name]}"
    return changes | {name: f"{name} ({found[name]}) is not declared" for name in found if name not in declared}


def conditions(table: SourceTable, references: Mapping[str, pl.DataFrame]) -> dict[str, pl.Expr]:
    """Rule name -> what holds for a good row, of the rules that one row alone decides and that keep a row out.

    Null where the rule does not look at the row. So events are judged as they arrive; the other rules look at a day
    once it is over.

    Raises:
        DeclarationError: a rule refers to a table that is not among ``references``, or shares a name.
    """
    _refuse_shared_names(table)
    schema, around = pl.Schema(table.columns), Around(references=references)
    return {
        rule.name: rule.holding(schema, around)
        for rule in table.rules
        if isinstance(rule, RowExpectation) and rule.by_row and rule.action in ("quarantine", "stop")
    }


def broken_rules(table: SourceTable, rows: pl.DataFrame, holds: Mapping[str, pl.Expr]) -> dict[str, pl.Series]:
    """Rule name -> whether each row breaks it; ``holds`` as ``conditions`` made it.

    Raises:
        DeclarationError: a rule cannot be evaluated.
    """
    # Added to every condition, so that one that is a literal has a value for each row.
    each_row = pl.repeat(True, pl.len(), dtype=pl.Boolean)
    try:
        broken = ((each_row & ~holds_or_null.fill_null(True)).alias(name) for name, holds_or_null in holds.items())
        frame = rows.select(broken)
    except pl.exceptions.PolarsError as error:
        raise DeclarationError(f"a rule of table {table.name!r} cannot be evaluated: {error}") from error
    return {name: frame[name] for name in holds}


def all_hold(table: SourceTable, rows: pl.DataFrame, holds: Mapping[str, pl.Expr]) -> bool:
    """Whether no row breaks any rule: one look, as most deliveries need no other.

    Raises:
        DeclarationError: a rule cannot be evaluated.
    """
    if not holds:
        return True
    try:
        return bool(rows.select(pl.all_horizontal(*holds.values()).all()).item())  # null: not looked at
    except pl.exceptions.PolarsError as error:
        raise DeclarationError(f"a rule of table {table.name!r} cannot be evaluated: {error}") from error


def _later_copies(table: SourceTable, rows: pl.DataFrame, bad: pl.Series) -> pl.Series:
    """Rows of a key and ``known_at`` of which an earlier row is good; one that became known later is a correction."""
    version = list(dict.fromkeys([*table.key, KNOWN_AT]))
    if not rows.select(version).is_duplicated().any():
        return _nowhere(rows)
    good = (~bad).cast(pl.Int64).alias("good")
    before = rows.select(version).with_columns(good).select(pl.col("good").cum_sum().over(version) - pl.col("good"))
    return before.to_series() > 0


def _nowhere(rows: pl.DataFrame) -> pl.Series:
    return pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)


def reasons_of(flags: Mapping[str, pl.Series]) -> pl.Series:
    """Of each row the names of all rules that it broke, or null; flags: rule -> whether each row broke it."""
    names = [pl.when(pl.lit(broken)).then(pl.lit(name)) for name, broken in flags.items() if broken.any()]
    if not names:
        height = next((broken.len() for broken in flags.values()), 0)
        return pl.repeat(None, height, dtype=pl.String, eager=True)
    return pl.select(pl.concat_str(names, separator=", ", ignore_nulls=True).replace("", None)).to_series()


def most_set_aside(table: SourceTable, rows: int) -> float:
    """How many of so many rows may be set aside; one alone never exceeds a share above zero."""
    return max(rows * table.max_quarantined, float(table.max_quarantined > 0))


def _share_verdict(table: SourceTable, rows: pl.DataFrame, bad: pl.Series, batch: pl.Expr | None) -> Verdict:
    part = pl.lit(0) if batch is None else batch
    parts = rows.with_columns(bad.alias("bad"), part.alias("part")).group_by("part").agg(pl.len(), pl.col("bad").sum())
    allowed = pl.max_horizontal(pl.col("len") * table.max_quarantined, pl.lit(float(table.max_quarantined > 0)))
    over = parts.filter(pl.col("bad") > allowed).sort("part")
    total, set_aside = rows.height, int(bad.sum())
    measures = {"quarantined": set_aside, "rows": total, "largest_share_allowed": table.max_quarantined}
    if over.is_empty():
        return Verdict(state="pass", reason=f"{set_aside} of {total} rows were set aside", measures=measures)
    first = over.row(0, named=True)
    where = "" if batch is None else f" ({first['part']})"
    reason = (
        f"{first['bad']} of {first['len']} rows of raw/{table.name}{where} were set aside, more than the share of "
        f"{table.max_quarantined:g} that is allowed; {examples(table, rows.filter(bad))}"
    )
    return Verdict(state="fail", reason=reason, measures=measures)


def _copies_verdict(table: SourceTable, rows: pl.DataFrame, copies: pl.Series) -> Verdict:
    count = int(copies.sum())
    measures = {"broken": count, "rows": rows.height}
    if not count:
        return Verdict(state="pass", reason=f"{DUPLICATE} holds on {rows.height} rows", measures=measures)
    reason = f"{count} of {rows.height} rows of raw/{table.name} break {DUPLICATE}; they were set aside"
    return Verdict(state="warn", reason=reason, measures=measures)
