"""How checks and deadlines stand by Dagster's own record: each check's newest result, each asset's freshness."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast, get_args

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from ml_platform.automation.event_log import newest_check_of_each
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.spec.verdict import State


@dataclass(frozen=True, kw_only=True)
class Stands:
    """A check's newest result or, where ``check`` is None, an asset's deadline."""

    asset: str
    check: str | None
    state: State


def standing(dagster_home: Path, postgres_url: str | None = None) -> Iterator[Stands]:
    """Every check that ever ran and every deadline that was ever judged; nothing where Dagster never ran.

    postgres_url: where the record is in production; what asks need not have Dagster's own folder there.
    """
    if postgres_url is None and not (dagster_home / "dagster.yaml").exists():
        return
    with _instance(dagster_home, postgres_url) as instance:
        for record in newest_check_of_each(instance):
            yield Stands(asset=record.key.asset_key.to_user_string(), check=record.key.name, state=_state(record))
        keys = list(instance.all_asset_keys())
        for key, found in sorted(instance.get_freshness_state_records(keys).items()):
            state = _FRESH.get(found.freshness_state.value, "unknown")
            yield Stands(asset=key.to_user_string(), check=None, state=state)


@contextmanager
def _instance(dagster_home: Path, postgres_url: str | None) -> Iterator[dg.DagsterInstance]:
    if postgres_url is None:
        with open_instance(dagster_home) as instance:
            yield instance
        return
    with TemporaryDirectory(prefix="dagster-") as folder:
        write_dagster_yaml(Path(folder), replayed=True, postgres_url=postgres_url)
        with open_instance(Path(folder)) as instance:
            yield instance


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
