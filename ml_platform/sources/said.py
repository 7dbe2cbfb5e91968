"""What an expectation found, as a verdict: the sentence that UI, log, alert and test get."""

import polars as pl

from ml_platform.sources.observe import Finding
from ml_platform.spec import KNOWN_AT, SourceTable, Verdict
from ml_platform.spec.expectations import Observed
from ml_platform.spec.verdict import State

_EXAMPLES = 3


def verdict_of(table: SourceTable, rows: pl.DataFrame, finding: Finding) -> Verdict:
    """Pass, or what follows from the failure: set aside and held rows warn and fail, a stop fails, the rest warns."""
    name, count = finding.expectation.name, finding.broken
    measures = {"broken": 0 if finding.success else count, "rows": finding.rows}
    if finding.success is None:
        return Verdict(state="pass", reason=f"{name} has nothing to be compared with yet", measures=measures)
    if finding.success:
        return Verdict(state="pass", reason=f"{name} holds on {finding.rows} rows{_few(finding)}", measures=measures)
    found = _found(table, finding)
    if finding.expectation.action == "quarantine":
        return Verdict(state="warn", reason=f"{found}; they were set aside", measures=measures)
    shown = _shown(table, rows, finding)
    if finding.expectation.action == "stop":
        return Verdict(state="fail", reason=f"{found}, which stops the table; {shown}", measures=measures)
    if finding.expectation.action == "hold":
        held = ", ".join(finding.expectation.columns) or "the table"
        reason = f"{found}, which holds back what uses {held}; {shown}"
        return Verdict(state="fail", reason=reason, measures=measures)
    state: State = "pass" if finding.expectation.severity == "info" else "warn"
    return Verdict(state=state, reason=f"{found}; {shown}", measures={**measures, "broken": count})


def examples(table: SourceTable, broken: pl.DataFrame, columns: tuple[str, ...] | None = None) -> str:
    """Three of the rows: key, ``known_at`` and the columns that the rule looks at (by default all)."""
    looked_at = sorted(table.columns if columns is None else columns)
    names = dict.fromkeys([*table.key, KNOWN_AT, *looked_at])
    shown = broken.select(name for name in names if name in broken.columns).head(_EXAMPLES).rows(named=True)
    return "for example " + " | ".join(", ".join(f"{name}={value}" for name, value in row.items()) for row in shown)


def _few(finding: Finding) -> str:
    return f" but {finding.broken}, which are few enough" if finding.broken else ""


def _found(table: SourceTable, finding: Finding) -> str:
    name = finding.expectation.name
    if finding.unexpected is not None:
        return f"{finding.broken} of {finding.rows} rows of raw/{table.name} break {name}"
    parts = [str(part) for part, seen in (finding.observed or {}).items() if not seen.success and part != 0]
    where = f" of {', '.join(parts[:_EXAMPLES])}{', ...' if len(parts) > _EXAMPLES else ''}" if parts else ""
    return f"raw/{table.name}{where} breaks {name}"


def _shown(table: SourceTable, rows: pl.DataFrame, finding: Finding) -> str:
    if finding.unexpected is not None:
        return examples(table, rows.filter(finding.unexpected), finding.expectation.columns)
    bad = [seen for seen in (finding.observed or {}).values() if not seen.success]
    return "; ".join(_told(seen) for seen in bad[:_EXAMPLES])


def _told(seen: Observed) -> str:
    more = ", ".join(f"{name}: {value}" for name, value in seen.details.items())
    return f"found {seen.value}" + (f" ({more})" if more else "")
