"""The checks of a raw table. They are evaluated within the step that writes it, which costs no step of their own."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import dagster as dg

from ml_platform.automation.gates import COLUMNS_CHECK, CONTRACT_CHECK, REFUSED
from ml_platform.resources import metadata
from ml_platform.sources.columns import columns_verdict
from ml_platform.sources.ingest import Ingested
from ml_platform.spec import SourceTable, Verdict
from ml_platform.spec.lineage import ALL_COLUMNS

CONTRACT, NOTHING_LOST, COLUMNS = CONTRACT_CHECK, "nothing_lost", COLUMNS_CHECK


def check_specs(table: SourceTable, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """What is checked: the contract, its columns, and that no row went missing between the source and the lake.

    A refused column is an error that does not block in Dagster's sense, which would stop whatever comes after the
    table: the conditions look at the columns that each asset reads, and so does whatever reads them in the same run.
    """
    rules = ", ".join(rule.name for rule in table.rules)
    return [
        dg.AssetCheckSpec(CONTRACT, asset=key, blocking=True, description=f"Rules, and rows for every day: {rules}."),
        dg.AssetCheckSpec(
            COLUMNS,
            asset=key,
            description="No column is refused. What reads a refused one stands still for that day, the rest goes on.",
        ),
        dg.AssetCheckSpec(
            NOTHING_LOST,
            asset=key,
            blocking=True,
            description="Rows in the source = rows raw + rows quarantined + rows forgotten.",
        ),
    ]


def check_results(key: dg.AssetKey, found: Ingested, lost: Verdict) -> list[dg.AssetCheckResult]:
    """The checks of a batch that was written."""
    rules = {f"rule: {name}": verdict.reason for name, verdict in found.rules.items()}
    return [
        _named(CONTRACT, key, found.contract, rules),
        _columns(key, found),
        _named(NOTHING_LOST, key, lost, {}),
    ]


def _columns(key: dg.AssetKey, found: Ingested) -> dg.AssetCheckResult:
    """Passes if none is refused; which column on which days stands in its metadata, for the conditions."""
    verdict = columns_verdict(found.refused)
    days: dict[str, list[str]] = {}
    for one in found.refused:
        days.setdefault(one.column, []).append(str(one.day))
    shown = {f"rows: {one.rule}": one.shown for one in found.refused if one.shown}
    told = {**metadata.verdict(verdict), **shown, REFUSED: dg.MetadataValue.json(days)}
    return dg.AssetCheckResult(
        check_name=COLUMNS, asset_key=key, passed=verdict.passed, description=verdict.reason, metadata=told,
        severity=dg.AssetCheckSeverity.WARN if verdict.passed else dg.AssetCheckSeverity.ERROR,
    )  # fmt: skip


def refused(key: dg.AssetKey, reason: str, days: Iterable[date | None]) -> dg.AssetCheckResult:
    """The contract check of a batch that was refused; ``days`` as they are for ``Refusal``."""
    told = {REFUSED: dg.MetadataValue.json({ALL_COLUMNS: [str(day) for day in days]})}
    return _named(CONTRACT, key, Verdict(state="fail", reason=reason), told)


def _named(name: str, key: dg.AssetKey, verdict: Verdict, extra: Mapping[str, Any]) -> dg.AssetCheckResult:
    return metadata.check(verdict, blocking=True, extra=extra)._replace(check_name=name, asset_key=key)
