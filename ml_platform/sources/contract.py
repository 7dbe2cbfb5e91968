"""A source table's contract applied to a batch: good rows, quarantined rows with reasons, a verdict a rule."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from ml_platform.spec import KNOWN_AT, ContractBroken, DeclarationError, Rule, SchemaChanged, SourceTable, Verdict

REASON = "reason"
DUPLICATE = "duplicate_key"
_SHARE = "share_quarantined"
_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Validated:
    """A batch, judged. Every row is in ``good`` or in ``quarantined`` (with ``reason``: all rules that it broke).

    refusal: why the batch as a whole must not be used, or ``None``.
    """

    good: pl.DataFrame
    quarantined: pl.DataFrame
    verdicts: Mapping[str, Verdict]
    refusal: str | None


def apply_contract(table: SourceTable, rows: pl.DataFrame, references: Mapping[str, pl.DataFrame]) -> Validated:
    """Judge the batch and refuse it if the contract says so.

    Raises:
        SchemaChanged: columns are missing, new or of another type.
        ContractBroken: a stop rule failed, or more rows were set aside than allowed.
    """
    found = judge(table, rows, references)
    if found.refusal:
        raise ContractBroken(found.refusal)
    return found


def judge(
    table: SourceTable, rows: pl.DataFrame, references: Mapping[str, pl.DataFrame], *, batch: pl.Expr | None = None
) -> Validated:
    """Judge every row by every rule; nothing is refused here.

    Of rows with the same key and ``known_at``, the first otherwise good one stays; one that became known later is a
    correction, and stays, too. A rule whose condition is null does not hold. ``batch`` names the part of the rows (a
    day) whose share of quarantined rows is judged, so that a bad day cannot hide among many good ones; one row alone
    never exceeds a share above zero.

    Args:
        table: the declaration.
        rows: the batch, with exactly the declared columns, in any order.
        references: raw tables that rules refer to, by name.
        batch: an expression over the columns; by default all rows are one part.

    Raises:
        SchemaChanged: columns are missing, new or of another type.
        DeclarationError: a rule cannot be evaluated.
    """
    rows = checked_schema(table, rows).sort(KNOWN_AT, *table.key, maintain_order=True)
    flags = broken_rules(table, rows, conditions(table, references))
    bad = pl.select(pl.any_horizontal(*flags.values())).to_series() if flags else _nowhere(rows)
    flags[DUPLICATE] = _later_copies(table, rows, bad)
    bad = bad | flags[DUPLICATE]
    kept = rows.filter(bad) if bad.any() else rows.clear()  # mostly nothing is: then a reason need not be made
    reasons = pl.select(_reasons(flags)).to_series().filter(bad) if kept.height else pl.Series([], dtype=pl.String)
    good, quarantined = rows.filter(~bad) if kept.height else rows, kept.with_columns(reasons.alias(REASON))
    if good.height + quarantined.height != rows.height:
        raise AssertionError(f"{table.name}: {rows.height} rows in, {good.height} + {quarantined.height} out")
    verdicts = {name: _rule_verdict(table, name, rows, broken) for name, broken in flags.items()}
    stopped = [verdict.reason for verdict in verdicts.values() if verdict.state == "fail"]
    share = _share_verdict(table, rows, bad, batch)
    verdicts[_SHARE] = share
    if share.state == "fail" and not stopped:
        stopped = [share.reason]
    return Validated(good=good, quarantined=quarantined, verdicts=verdicts, refusal="; ".join(stopped) or None)


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
    """Rule name -> what holds for a good row.

    Raises:
        DeclarationError: a rule has no condition, refers to a table that is not among ``references``, or shares a name.
    """
    holds = {rule.name: _condition(table, rule, references) for rule in table.rules}
    if len(holds) != len(table.rules):
        raise DeclarationError(f"two rules of table {table.name!r} share a name; names are reasons, make them unique")
    return holds


def broken_rules(table: SourceTable, rows: pl.DataFrame, holds: Mapping[str, pl.Expr]) -> dict[str, pl.Series]:
    """Rule name -> whether each row breaks it; ``holds`` as ``conditions`` made it.

    Raises:
        DeclarationError: a rule cannot be evaluated.
    """
    # Added to every condition, so that one that is a literal has a value for each row.
    each_row = pl.repeat(True, pl.len(), dtype=pl.Boolean)
    try:
        frame = rows.select(~(each_row & condition).fill_null(False).alias(name) for name, condition in holds.items())
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
        every = pl.all_horizontal(condition.fill_null(False) for condition in holds.values())
        return bool(rows.select(every.all()).item())
    except pl.exceptions.PolarsError as error:
        raise DeclarationError(f"a rule of table {table.name!r} cannot be evaluated: {error}") from error


def _condition(table: SourceTable, rule: Rule, references: Mapping[str, pl.DataFrame]) -> pl.Expr:
    if rule.references is None:
        if rule.holds is None:
            raise DeclarationError(f"rule {rule.name!r} of table {table.name!r} has no condition; give it holds=")
        return rule.holds
    column, other, other_column = rule.references
    if other not in references:
        raise DeclarationError(
            f"rule {rule.name!r} of table {table.name!r} refers to raw/{other}, which was not handed over; "
            f"known: {', '.join(sorted(references)) or 'none'}"
        )
    values = references[other][other_column].drop_nulls().unique()
    return pl.col(column).is_in(values.implode()) | pl.col(column).is_null()


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


def _reasons(flags: Mapping[str, pl.Series]) -> pl.Expr:
    names = [pl.when(pl.lit(broken)).then(pl.lit(name)) for name, broken in flags.items() if broken.any()]
    if not names:
        return pl.lit(None, pl.String)
    return pl.concat_str(names, separator=", ", ignore_nulls=True)


def _rule_verdict(table: SourceTable, name: str, rows: pl.DataFrame, broken: pl.Series) -> Verdict:
    rule = next((rule for rule in table.rules if rule.name == name), Rule(name=name))
    count = int(broken.sum())
    measures = {"broken": count, "rows": rows.height}
    if not count:
        return Verdict(state="pass", reason=f"{name} holds on {rows.height} rows", measures=measures)
    found = f"{count} of {rows.height} rows of raw/{table.name} break {name}"
    if rule.action == "quarantine":
        return Verdict(state="warn", reason=f"{found}; they were set aside", measures=measures)
    reason = f"{found}, which stops the table; {examples(table, rows.filter(broken), rule)}"
    return Verdict(state="fail", reason=reason, measures=measures)


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
        f"{table.max_quarantined:g} that is allowed; {examples(table, rows.filter(bad), None)}"
    )
    return Verdict(state="fail", reason=reason, measures=measures)


def most_set_aside(table: SourceTable, rows: int) -> float:
    """How many of so many rows may be set aside; one alone never exceeds a share above zero."""
    return max(rows * table.max_quarantined, float(table.max_quarantined > 0))


def examples(table: SourceTable, broken: pl.DataFrame, rule: Rule | None) -> str:
    """Three of the rows: key, ``known_at`` and the columns that the rule looks at."""
    looked_at = list(table.columns)
    if rule is not None:
        looked_at = rule.holds.meta.root_names() if rule.holds is not None else [rule.column or ""]
    columns = dict.fromkeys([*table.key, KNOWN_AT, *sorted(looked_at)])
    shown = broken.select(column for column in columns if column in broken.columns).head(_EXAMPLES).rows(named=True)
    return "for example " + " | ".join(", ".join(f"{name}={value}" for name, value in row.items()) for row in shown)
