"""How checks and deadlines stand by Dagster's own record: each check's newest result, each asset's freshness."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from ml_platform.automation.event_log import newest_check_of_each
from ml_platform.automation.instance import open_instance
from ml_platform.spec.verdict import State


@dataclass(frozen=True, kw_only=True)
class Stands:
    """A check's newest result or, where ``check`` is None, an asset's deadline."""

    asset: str
    check: str | None
    state: State


def standing(dagster_home: Path) -> Iterator[Stands]:
    """Every check that ever ran and every deadline that was ever judged; nothing where Dagster never ran."""
    if not (dagster_home / "dagster.yaml").exists():
        return
    with open_instance(dagster_home) as instance:
        for record in newest_check_of_each(instance):
            yield Stands(asset=record.key.asset_key.to_user_string(), check=record.key.name, state=_state(record))
        keys = list(instance.all_asset_keys())
        for key, found in sorted(instance.get_freshness_state_records(keys).items()):
            yield Stands(
                asset=key.to_user_string(), check=None, state=_FRESH.get(found.freshness_state.value, "unknown")
            )


_FRESH: dict[str, State] = {"PASS": "pass", "WARN": "warn", "FAIL": "fail"}


def _state(record: AssetCheckExecutionRecord) -> State:
    """The verdict that the result's metadata hold; of a check without one, whether it passed."""
    found = record.evaluation
    if found is None:
        return "unknown"
    said = found.metadata.get("verdict")
    if isinstance(said, dg.TextMetadataValue) and said.text in get_args(State):
        return cast(State, said.text)
    return "pass" if found.passed else "fail"
