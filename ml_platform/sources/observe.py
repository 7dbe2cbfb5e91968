"""A batch looked at by a contract's expectations: which rows fail each, and what was observed of the whole."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from ml_platform.spec import DeclarationError
from ml_platform.spec.expectations import Around, BatchExpectation, Expectation, Observed, RowExpectation
from ml_platform.spec.expectations.base import PART

_LOOKED_AT = "looked at: "


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one expectation found in one batch.

    success: whether it is met; ``None`` if nothing can be said (a day that is not over, too little history).
    unexpected: of each row, whether it fails; ``None`` of an expectation about the batch as a whole.
    considered: rows that were looked at. observed: what was found of each part (a day), of such an expectation.
    """

    expectation: Expectation
    success: bool | None
    rows: int
    considered: int
    unexpected: pl.Series | None = None
    observed: Mapping[Any, Observed] | None = None

    @property
    def broken(self) -> int:
        """Rows that fail, or parts that do."""
        if self.unexpected is not None:
            return int(self.unexpected.sum())
        return sum(not each.success for each in (self.observed or {}).values())


def without_parts(finding: Finding, parts: Collection[Any], part: pl.Series) -> Finding:
    """The finding, had nothing been asked about these parts. part: that of each row, missing if there is but one."""
    if not parts:
        return finding
    hit = pl.repeat(True, part.len(), eager=True) if part.null_count() == part.len() else part.is_in(list(parts))
    if finding.unexpected is not None:
        left = finding.unexpected & ~hit
        return replace(finding, unexpected=left, success=finding.success or not left.any())
    seen = {name: one for name, one in (finding.observed or {}).items() if name not in parts and None not in parts}
    return replace(finding, observed=seen, success=all(one.success for one in seen.values()) if seen else None)


def observe(
    expectations: Sequence[Expectation],
    rows: pl.DataFrame,
    around: Around | None = None,
    *,
    parts: pl.Expr | None = None,
    whole: bool = True,
    table: str = "",
) -> dict[str, Finding]:
    """What each expectation finds, by its name.

    Args:
        expectations: those of a contract; their names differ.
        rows: the batch, in the order in which the rows became known.
        around: references, earlier rows, when the parts ended.
        parts: the part (the local day) of a row; what is said of a batch is said of each part. By default one part.
        whole: whether all rows of each part are there; otherwise only what one row alone decides is looked at.
        table: its name, for messages.

    Raises:
        DeclarationError: one of them cannot be evaluated.
    """
    around = around or Around()
    chosen = [each for each in expectations if whole or each.by_row]
    parted = parts is not None and any(not each.by_row for each in chosen)
    frame = rows.with_columns(parts.alias(PART)) if parted and parts is not None else rows
    about_rows = [each for each in chosen if isinstance(each, RowExpectation)]
    about_all = [each for each in chosen if isinstance(each, BatchExpectation)]
    try:
        found = {
            **_by_row([each for each in about_rows if not each.looks_back_days], frame, around, parted=parted),
            **_after_others([each for each in about_rows if each.looks_back_days], frame, around, parted=parted),
            **_as_a_whole(about_all, frame, around, parted=parted),
        }
    except pl.exceptions.PolarsError as error:
        raise DeclarationError(f"a rule of table {table!r} cannot be evaluated: {error}") from error
    return {each.name: found[each.name] for each in chosen}


def _by_row(
    expectations: Sequence[RowExpectation], rows: pl.DataFrame, around: Around, *, parted: bool
) -> dict[str, Finding]:
    """All of them in one pass over the rows."""
    met = _surely_met(expectations, rows)
    nowhere = pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)
    found = {
        each.name: Finding(expectation=each, success=True, rows=rows.height, considered=rows.height, unexpected=nowhere)
        for each in met
    }
    expectations = [each for each in expectations if each.name not in found]
    if not expectations:
        return found
    schema = rows.schema
    # Joined to every condition, so that one that is a literal has a value for each row.
    each_row = pl.repeat(True, pl.len(), dtype=pl.Boolean)
    asked = []
    for each in expectations:
        unexpected, considered = each.unexpected(schema, around), each.considered(schema, around)
        if each.scope == "rows" and parted:
            unexpected, considered = unexpected.over(PART), considered.over(PART)
        asked.append((each_row & unexpected).alias(each.name))
        if each.mostly < 1:
            asked.append((each_row & considered).alias(_LOOKED_AT + each.name))
    return {**found, **_found(expectations, rows, rows.select(asked), rows[PART] if parted else None)}


def _surely_met(expectations: Sequence[RowExpectation], rows: pl.DataFrame) -> list[RowExpectation]:
    """Those of which it is cheaper to say that no row fails than which do, and none does; of each part then, too."""
    asked = {each.name: quick for each in expectations if (quick := each.surely_met(rows.schema)) is not None}
    said = rows.select(quick.alias(name) for name, quick in asked.items()).row(0, named=True) if asked else {}
    return [each for each in expectations if said.get(each.name)]


def _after_others(
    expectations: Sequence[RowExpectation], rows: pl.DataFrame, around: Around, *, parted: bool
) -> dict[str, Finding]:
    """Rows are compared with those before them, also with those before the batch."""
    if not expectations:
        return {}
    before = around.before
    asked = [each.unexpected(rows.schema, around).alias(each.name) for each in expectations]
    asked += [each.considered(rows.schema, around).alias(_LOOKED_AT + each.name) for each in expectations]
    names = list(dict.fromkeys(name for each in expectations for name in each.reads))
    together = rows.select(names)
    if before is not None and before.height:
        together = pl.concat([before.select(names), together])
    return _found(expectations, rows, together.select(asked).tail(rows.height), rows[PART] if parted else None)


def _found(
    expectations: Sequence[RowExpectation], rows: pl.DataFrame, flags: pl.DataFrame, part: pl.Series | None
) -> dict[str, Finding]:
    return {each.name: _judged(each, rows, flags, part) for each in expectations}


def _judged(each: RowExpectation, rows: pl.DataFrame, flags: pl.DataFrame, part: pl.Series | None) -> Finding:
    unexpected = flags[each.name]
    if each.mostly >= 1:
        looked_at = flags[_LOOKED_AT + each.name].sum() if _LOOKED_AT + each.name in flags.columns else rows.height
        success = not unexpected.any()
    else:
        looked_at, success = int(flags[_LOOKED_AT + each.name].sum()), _mostly(each, flags, part)
    return Finding(
        expectation=each, success=success, rows=rows.height, considered=int(looked_at), unexpected=unexpected
    )


def _mostly(each: RowExpectation, flags: pl.DataFrame, part: pl.Series | None) -> bool:
    """Whether enough of the rows looked at are as expected, in every part."""
    counted = flags.select(
        (part if part is not None else pl.lit(0)).alias(PART),
        bad=pl.col(each.name),
        all=pl.col(_LOOKED_AT + each.name),
    )
    shares = counted.group_by(PART).agg(pl.col("bad").sum().cast(pl.Float64), pl.col("all").sum().cast(pl.Float64))
    known = shares.filter(pl.col("all") > 0)
    return bool(known.select(((pl.col("all") - pl.col("bad")) / pl.col("all") >= each.mostly).all()).item())


def _as_a_whole(
    expectations: Sequence[BatchExpectation], rows: pl.DataFrame, around: Around, *, parted: bool
) -> dict[str, Finding]:
    """Every value in one pass over the rows, then what is to be said of each part."""
    if not expectations:
        return {}
    schema = pl.Schema({name: dtype for name, dtype in rows.schema.items() if name != PART})
    asked = [each.measured(schema).alias(each.name) for each in expectations]
    if parted:
        measured = rows.group_by(PART, maintain_order=True).agg(asked)
    else:
        measured = rows.select(asked).with_columns(pl.lit(0).alias(PART))
    around = replace(around, summaries=_summaries(expectations, rows, around, parted=parted))
    found = {}
    for each in expectations:
        said = {
            part: seen
            for part, value in measured.select(PART, each.name).iter_rows()
            if (not parted or part in around.ends)  # of a day that is not over nothing can be said
            and (seen := each.judge(value, schema, around, part)) is not None
        }
        success = all(seen.success for seen in said.values()) if said else None
        found[each.name] = Finding(
            expectation=each, success=success, rows=rows.height, considered=rows.height, observed=said
        )
    return found


def _summaries(
    expectations: Sequence[BatchExpectation], rows: pl.DataFrame, around: Around, *, parted: bool
) -> dict[str, pl.DataFrame]:
    asking = [each for each in expectations if type(each).summary is not BatchExpectation.summary]
    if not asking:
        return {}
    names = list(dict.fromkeys([PART, *(name for each in asking for name in each.reads)]))
    known = (rows if parted else rows.with_columns(pl.lit(0).alias(PART))).select(names)
    if around.before is not None and around.before.height and parted:
        known = pl.concat([around.before.select(names), known])
    made = {each.name: each.summary(known) for each in asking}
    return {name: summary for name, summary in made.items() if summary is not None}
