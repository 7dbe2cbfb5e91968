"""Deadlines: policies attached at the root, and their verdicts on the replay's clock."""

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.freshness import (
    FreshnessState,
    FreshnessStateChange,
    TimeWindowFreshnessPolicy,
)

from ml_platform.automation.none_because import reasons
from ml_platform.automation.runs import clock_tags, replayed_moment

DEADLINE = "fresh_within_hours"
_STALE = (FreshnessState.WARN, FreshnessState.FAIL)
# What is made once a day is up to 25 hours old (when clocks go back) before its next turn: no reason to warn earlier.
_A_DAY = timedelta(hours=25, minutes=30)


def with_policies(definitions: dg.Definitions) -> dg.Definitions:
    """Give each asset with ``fresh_within_hours`` in its metadata that deadline, and the others the reason for none.

    One that is skipped on purpose (an alarm) must not declare any. Dagster calls every output of a step that may be
    made in part skippable, so this cannot be told from the specification.
    """

    def with_policy(spec: dg.AssetSpec) -> dg.AssetSpec:
        hours = spec.metadata.get(DEADLINE)
        if hours is not None:
            deadline = timedelta(hours=float(getattr(hours, "value", hours)))
            policy = dg.FreshnessPolicy.time_window(fail_window=deadline, warn_window=warn_after(deadline))
            spec = spec.replace_attributes(freshness_policy=policy)
        told = reasons(spec)
        return spec.merge_attributes(metadata=told) if told else spec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # the one documented way to change specs at the root
        return definitions.map_resolved_asset_specs(func=with_policy)


def warn_after(deadline: timedelta) -> timedelta:
    """The age at which a deadline warns: three quarters of it, but not within the day that a daily asset may take."""
    early = deadline * 0.75
    if early < _A_DAY < deadline:
        return _A_DAY
    return early


def judge(definitions: dg.Definitions, instance: dg.DagsterInstance, at: datetime) -> list[dg.AssetKey]:
    """Judge every policy at the replay's moment ``at`` and record the verdicts that changed, as Dagster's daemon does.

    Returns the assets whose verdict became a warning or a failure. The age of an asset is that of its newest run on the
    replay's clock; a run that was started by hand on replayed state is dated to the first judgement after it.
    """
    at = at.astimezone(UTC)
    policies = {
        node.key: node.freshness_policy
        for node in definitions.resolve_asset_graph().asset_nodes
        if isinstance(node.freshness_policy, TimeWindowFreshnessPolicy)
    }
    made = _made_at(instance, list(policies), at)
    before = instance.get_freshness_state_records(list(policies))
    stale = []
    for key, policy in policies.items():
        old = before[key].freshness_state if key in before else None
        new = _verdict(policy, at - made[key] if key in made else None)
        if new is not old:
            change = FreshnessStateChange(
                key=key,
                new_state=new,
                previous_state=old or FreshnessState.UNKNOWN,
                state_change_timestamp=at.timestamp(),
            )
            instance._report_runless_asset_event(change)
            stale += [key] if new in _STALE else []
    return stale


def _verdict(policy: TimeWindowFreshnessPolicy, age: timedelta | None) -> FreshnessState:
    if age is None:
        return FreshnessState.UNKNOWN
    if age >= policy.fail_window.to_timedelta():
        return FreshnessState.FAIL
    warns = policy.warn_window is not None and age >= policy.warn_window.to_timedelta()
    return FreshnessState.WARN if warns else FreshnessState.PASS


def _made_at(instance: dg.DagsterInstance, keys: list[dg.AssetKey], at: datetime) -> Mapping[dg.AssetKey, datetime]:
    """When each asset was last made, on the replay's clock; those never made by a run are left out."""
    entries = [record.asset_entry for record in instance.get_asset_records(keys)]
    run_of = {entry.asset_key: entry.last_materialization.run_id for entry in entries if entry.last_materialization}
    wanted = sorted({run_id for run_id in run_of.values() if run_id})
    moments = {}
    for run in instance.get_run_records(dg.RunsFilter(run_ids=wanted)) if wanted else []:
        moment = replayed_moment(run)
        if moment is None:
            instance.add_run_tags(run.dagster_run.run_id, dict(clock_tags(at)))
        moments[run.dagster_run.run_id] = moment or at
    return {key: moments[run_id] for key, run_id in run_of.items() if run_id in moments}
