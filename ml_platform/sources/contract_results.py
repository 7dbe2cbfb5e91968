"""What a contract found in a batch, in the words of Great Expectations' validation results, for its Data Docs."""

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.sources.contract import DUPLICATE, Validated
from ml_platform.sources.observe import Finding
from ml_platform.sources.said import verdict_of
from ml_platform.sources.suites import as_suite_entry
from ml_platform.spec import KNOWN_AT, SourceTable
from ml_platform.spec.expectations import Expectation, ExpectCompoundColumnsToBeUnique
from ml_platform.spec.expectations.base import SHOWN


def as_results(table: SourceTable, rows: pl.DataFrame, found: Validated, run: str, at: datetime) -> dict[str, Any]:
    """Everything that the page shows, as JSON holds it.

    rows: the batch as it was judged, in its order. run: its name on the page. at: when it was judged.
    """
    results = [_result(table, rows, finding) for finding in found.findings.values()]
    results.append(_copies(table, rows, found))
    good = sum(result["success"] for result in results)
    return {
        "suite": f"raw/{table.name}",
        "run": run,
        "at": at.isoformat(),
        "rows": rows.height,
        "quarantined": found.quarantined.height,
        "refusal": found.refusal,
        "success": good == len(results),
        "evaluated": len(results),
        "successful": good,
        "results": results,
    }


def _result(table: SourceTable, rows: pl.DataFrame, finding: Finding) -> dict[str, Any]:
    rule = finding.expectation
    result = _of_rows(rule, rows, finding) if finding.unexpected is not None else _of_all(finding)
    reason = verdict_of(table, rows, finding).reason
    return _entry(rule, finding.success is not False, result, reason)


def _entry(rule: Expectation, success: bool, result: Mapping[str, Any], reason: str) -> dict[str, Any]:
    entry = as_suite_entry(rule)
    notes = "; ".join(filter(None, [f"{rule.name} ({rule.action})", rule.notes, "" if success else reason]))
    told = rule.notes or _sentence(rule)
    more = {"own": rule.own, "description": told if rule.own else None, "notes": notes}
    return {**entry, **more, "success": success, "result": _json(result)}


def _sentence(rule: Expectation) -> str:
    """A type of ours has no template in Great Expectations: what it says, from its own description."""
    kwargs = {name: value for name, value in rule.kwargs.items() if name not in ("column", "holds")}
    given = ", ".join(f"{name} {_written(value)}" for name, value in kwargs.items())
    holds = getattr(rule, "holds", None)
    said = str(holds) if isinstance(holds, pl.Expr) else (type(rule).__doc__ or "").split("\n\n")[0].replace("\n", " ")
    about = f"{', '.join(rule.columns)}: " if rule.columns and not isinstance(holds, pl.Expr) else ""
    return f"{rule.name} - {about}{' '.join(said.replace('``', '').split())}" + (f" ({given})" if given else "")


def _written(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return str(value)


def _of_rows(rule: Expectation, rows: pl.DataFrame, finding: Finding) -> dict[str, Any]:
    count, looked_at = finding.broken, finding.considered
    shown = rows.filter(finding.unexpected) if count and finding.unexpected is not None else rows.clear()
    values = shown.select(rule.columns).rows()
    listed = [row[0] if len(row) == 1 else list(row) for row in values[:SHOWN]]
    texts = pl.Series([str(row[0] if len(row) == 1 else row) for row in values], dtype=pl.String)
    counts = texts.value_counts(sort=True).head(SHOWN).rows()
    missing = rows.height - looked_at
    return {
        "element_count": rows.height,
        "missing_count": missing,
        "missing_percent": 100 * missing / rows.height if rows.height else None,
        "unexpected_count": count,
        "unexpected_percent": 100 * count / looked_at if looked_at else 0.0,
        "unexpected_percent_total": 100 * count / rows.height if rows.height else 0.0,
        "unexpected_percent_nonmissing": 100 * count / looked_at if looked_at else 0.0,
        "partial_unexpected_list": listed,
        "partial_unexpected_counts": [{"value": value, "count": n} for value, n in counts],
    }


def _of_all(finding: Finding) -> dict[str, Any]:
    """The worst part, or the last."""
    seen = finding.observed or {}
    if not seen:
        return {"observed_value": "nothing to be compared with yet"}
    part, chosen = next(((p, s) for p, s in seen.items() if not s.success), list(seen.items())[-1])
    details = dict(chosen.details)
    lists = {
        name: details.pop(name) for name in list(details) if name.startswith(("unexpected_", "missing_", "partial_"))
    }
    shown = chosen.value if chosen.value is not None else "; ".join(f"{n}: {v}" for n, v in lists.items())
    where = {} if part == 0 or len(seen) == 1 else {"of": part}
    return {"observed_value": shown, **lists, **({"details": {**details, **where}} if details or where else {})}


def _copies(table: SourceTable, rows: pl.DataFrame, found: Validated) -> dict[str, Any]:
    verdict = found.verdicts[DUPLICATE]
    rule = ExpectCompoundColumnsToBeUnique(column_list=tuple(dict.fromkeys([*table.key, KNOWN_AT])), name=DUPLICATE)
    count = int(verdict.measures["broken"])
    share = 100 * count / rows.height if rows.height else 0.0
    told = {"element_count": rows.height, "unexpected_count": count, "unexpected_percent": share}
    return _entry(rule, not count, told, verdict.reason)


def _json(value: Any) -> Any:
    """As JSON holds it; what is no number there is a text."""
    if isinstance(value, Mapping):
        return {str(name): _json(each) for name, each in value.items()}
    if isinstance(value, list | tuple | pl.Series):
        return [_json(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, date | datetime | timedelta):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
