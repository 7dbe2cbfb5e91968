"""What the deadline of a raw table says of its age: for who asks without an instance, such as a drill."""

from datetime import timedelta

import dagster as dg
from dagster._core.definitions.freshness import FreshnessState, TimeWindowFreshnessPolicy

from ml_platform import asset_keys
from ml_platform.automation.freshness import DEADLINE, state_at, with_policies
from ml_platform.spec import SourceTable, Verdict
from ml_platform.spec.verdict import State

_STATES: dict[FreshnessState, State] = {
    FreshnessState.PASS: "pass",
    FreshnessState.WARN: "warn",
    FreshnessState.FAIL: "fail",
}


def deadline(table: SourceTable, age: timedelta) -> Verdict:
    """The verdict of the policy that ``raw/<table>`` is given at the root, if it was last made so long ago."""
    if table.fresh_within is None:
        return Verdict.unknown(f"raw/{table.name} has no deadline")
    hours = table.fresh_within / timedelta(hours=1)
    spec = dg.AssetSpec(asset_keys.raw(table.name), metadata={DEADLINE: hours})
    (found,) = with_policies(dg.Definitions(assets=[spec])).resolve_all_asset_specs()
    policy = found.freshness_policy
    assert isinstance(policy, TimeWindowFreshnessPolicy), "with_policies gives each deadline one"
    told = f"raw/{table.name} was last made {age / timedelta(hours=1):.0f} hours ago; its deadline is {hours:.0f} hours"
    return Verdict(state=_STATES[state_at(policy, age)], reason=told)
