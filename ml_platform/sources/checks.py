"""The checks of a raw table. They are evaluated within the step that writes it, which costs no step of their own."""

import dagster as dg

from ml_platform.resources import metadata
from ml_platform.sources.ingest import Ingested
from ml_platform.spec import SourceTable, Verdict

CONTRACT, NOTHING_LOST = "contract", "nothing_lost"


def check_specs(table: SourceTable, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """What is checked: the contract, and that no row went missing between the source and the lake."""
    rules = ", ".join(rule.name for rule in table.rules)
    return [
        dg.AssetCheckSpec(CONTRACT, asset=key, blocking=True, description=f"Rules, and rows for every day: {rules}."),
        dg.AssetCheckSpec(
            NOTHING_LOST,
            asset=key,
            blocking=True,
            description="Rows in the source = rows raw + rows quarantined + rows forgotten.",
        ),
    ]


def check_results(key: dg.AssetKey, found: Ingested, lost: Verdict) -> list[dg.AssetCheckResult]:
    """Both checks of a batch that was written."""
    rules = {f"rule: {name}": verdict.reason for name, verdict in found.rules.items()}
    return [
        _named(CONTRACT, key, found.contract, rules),
        _named(NOTHING_LOST, key, lost, {}),
    ]


def refused(key: dg.AssetKey, reason: str) -> dg.AssetCheckResult:
    """The contract check of a batch that was refused."""
    return _named(CONTRACT, key, Verdict(state="fail", reason=reason), {})


def _named(name: str, key: dg.AssetKey, verdict: Verdict, extra: dict[str, str]) -> dg.AssetCheckResult:
    return metadata.check(verdict, blocking=True, extra=extra)._replace(check_name=name, asset_key=key)
