"""Drift as assets: the verdicts of each day, the page for people, and reviews of what no policy covers."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.automation.conditions import each_day, on_alarm
from ml_platform.automation.partitions import days_of
from ml_platform.monitoring.drift_plot import drift_plot
from ml_platform.monitoring.drift_record import note
from ml_platform.monitoring.pages import PAGE_DAYS, write_drift_page
from ml_platform.monitoring.served import served_features
from ml_platform.monitoring.uncovered import ask, look
from ml_platform.monitoring.watched import Judged, judge_days, source_of
from ml_platform.resources import metadata
from ml_platform.resources.profiles import Profile
from ml_platform.spec import DriftPolicy, Project, Verdict
from ml_platform.spec.calendar import day_of
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger

GROUP = "monitoring"
STEADY = "no_sharp_change"
_Events = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]
_PLOTTED_DAYS = 56


def drift_assets(project: Project, days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The policies of each service in one step, those of raw tables in another; pages; reviews."""
    groups: dict[str, list[DriftPolicy]] = {}
    for policy in project.drift_policies.values():
        groups.setdefault(policy.service or "tables", []).append(policy)
    pages = [policy for policy in project.drift_policies.values() if policy.service and policy.of == "features"]
    return [
        *(_drift(project, f"drift_{name}", policies, days) for name, policies in groups.items()),
        *(_page(project, policy) for policy in pages),
        *([_reviews(project, days)] if any(table.partitioned for table in project.tables.values()) else []),
    ]


def _owner(project: Project, policy: DriftPolicy) -> str:
    return project.tables[policy.table].owner if policy.table else project.services[policy.service].owner


def _spec(project: Project, policy: DriftPolicy) -> dg.AssetSpec:
    key, source = asset_keys.drift(policy.name), source_of(policy)
    return dg.AssetSpec(
        key,
        deps=[asset_keys.profiles(*source)],
        description=f"{policy.description} Distances of each column of {'/'.join(source)} from days of its season.",
        automation_condition=each_day(),
        metadata={"fresh_within_hours": 26},
        kinds=asset_keys.kinds(key, "deltalake", "polars"),
        owners=[_owner(project, policy)],
        group_name=GROUP,
    )


def _drift(
    project: Project, name: str, policies: Sequence[DriftPolicy], days: dg.DailyPartitionsDefinition
) -> dg.AssetsDefinition:
    keys = {policy.name: asset_keys.drift(policy.name) for policy in policies}

    @dg.multi_asset(
        name=name,
        specs=[_spec(project, policy) for policy in policies],
        check_specs=[
            dg.AssetCheckSpec(STEADY, asset=key, description="Nothing changed sharply.") for key in keys.values()
        ],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def drifted(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
        clock: dg.ResourceParam[Clock],
    ) -> _Events:
        span = days_of(context)
        for policy in (policy for policy in policies if keys[policy.name] in context.selected_asset_keys):
            table = f"drift/{policy.name}"
            judged = judge_days(lake, policy, span, table)
            rows = pl.concat(one.rows for one in judged)
            lake.replace(table, rows, span)
            for one in judged:
                note(ledger, project, policy.name, one.day, clock.now(), one.verdict)
            found = told_of(judged)
            shown = {
                **metadata.table(rows),
                **metadata.verdict(found),
                **_page_link(policy),
                **_plot(lake, policy, judged),
            }
            yield dg.MaterializeResult(asset_key=keys[policy.name], metadata=shown)
            yield metadata.check(found, name=STEADY, of=keys[policy.name])

    return drifted


def told_of(judged: Sequence[Judged]) -> Verdict:
    """Of a range the newest day speaks, unless an earlier one failed: a later pass does not undo it."""
    return next((one.verdict for one in reversed(judged) if one.verdict.state == "fail"), judged[-1].verdict)


def _page_link(policy: DriftPolicy) -> Mapping[str, Any]:
    if not policy.service or policy.of != "features":
        return {}
    return {"page_for_people": dg.MetadataValue.asset(asset_keys.drift_report(policy.name))}


def _plot(lake: Lake, policy: DriftPolicy, judged: Sequence[Judged]) -> Mapping[str, Any]:
    """Twice a month, and on days that fail: drawing takes as long as judging."""
    day, states = judged[-1].day, {one.verdict.state for one in judged}
    if day.day not in (1, 15) and "fail" not in states:
        return {}
    rows = lake.read(f"drift/{policy.name}", first=day - timedelta(days=_PLOTTED_DAYS), last=day)
    return (
        {"plot": metadata.image(drift_plot(rows), "distance by day, in multiples of the threshold")}
        if rows.height
        else {}
    )


def _page(project: Project, policy: DriftPolicy) -> dg.AssetsDefinition:
    retraining = project.models[project.services[policy.service].model].policy
    alarm = [asset_keys.retrain(retraining)] if retraining else []

    @dg.asset(
        key=asset_keys.drift_report(policy.name),
        deps=[dg.AssetDep(asset_keys.drift(policy.name), partition_mapping=dg.LastPartitionMapping()), *alarm],
        automation_condition=on_alarm(alarm[0]) if alarm else None,
        description=f"Evidently's page on the features that {policy.service} served: the last week against the weeks "
        f"before, on a sample; made when a retraining is wanted. It informs people and decides nothing.",
        kinds=asset_keys.kinds(asset_keys.drift_report(policy.name), "evidently"),
        group_name="decisions",  # it stands beside the decision that it illustrates
        owners=["team:data-science"],
    )
    def drift_page(
        lake: dg.ResourceParam[Lake], clock: dg.ResourceParam[Clock], profile: dg.ResourceParam[Profile]
    ) -> dg.MaterializeResult[Any]:
        first = day_of(clock.now(), project.timezone) - timedelta(days=PAGE_DAYS)
        served, days = served_features(lake.read(f"predictions/{policy.service}", first=first))
        target = profile.reports_path / f"drift-{policy.name}-{clock.now():%Y-%m-%d}.html"
        found = write_drift_page(served, days, target)
        return dg.MaterializeResult(metadata={"page": dg.MetadataValue.path(str(target)), "reason": found})

    return drift_page


def _reviews(project: Project, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    key = asset_keys.reviews(project.name)
    tables = [table.name for table in project.tables.values() if table.partitioned]

    @dg.asset(
        key=key,
        deps=[asset_keys.profiles("raw", name) for name in tables],
        description="Columns of raw tables that no drift policy covers: one that moves sharply opens a review, and "
        "retraining on it waits for a person.",
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=each_day(),
        metadata={"fresh_within_hours": 26},
        kinds=asset_keys.kinds(key, "deltalake", "polars"),
        owners=["team:ml-platform"],
        group_name=GROUP,
    )
    def reviews(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
        clock: dg.ResourceParam[Clock],
    ) -> dg.MaterializeResult[Any]:
        span = days_of(context)
        rows, moved = look(project, lake, span)
        lake.replace(f"reviews/{project.name}", rows, span)
        opened = ask(ledger, moved, clock.now())
        told = "; ".join(one.reason for one in moved[:3]) or "no uncovered column moved sharply"
        found: dict[str, Any] = {"columns": rows.height, "moved": len(moved), "reviews": len(opened), "reason": told}
        return dg.MaterializeResult(metadata={**metadata.table(rows), **found})

    return reviews
