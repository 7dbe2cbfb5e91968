"""Stage 3 as assets: skew, performance on late labels and drift of a service, day by day."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, TypedDict

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.automation.conditions import each_day, on_alarm
from ml_platform.automation.partitions import days_of
from ml_platform.features.refresh import GRID, read_for_recall
from ml_platform.features.skew import compare, note_skew, sampled
from ml_platform.features.skew import verdict as skew_verdict
from ml_platform.features.skew_since import given_since, telling_of_others
from ml_platform.monitoring.drift import drift, reference
from ml_platform.monitoring.drift_record import note
from ml_platform.monitoring.pages import page_days, write_drift_page
from ml_platform.monitoring.performance import cohorts, first_followed, newest
from ml_platform.monitoring.plots import performance_plot
from ml_platform.resources import metadata
from ml_platform.resources.profiles import Profile
from ml_platform.spec import DriftPolicy, Project, Service, Verdict
from ml_platform.spec.calendar import day_of, day_start
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.forgotten import Forgotten
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.prediction_log import named_features

GROUP = "monitoring"
_Events = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]
EQUAL = "served_equals_recomputed"
STEADY = "no_sharp_change"


def monitoring_assets(project: Project, days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """For every service its skew and performance; for every drift policy its verdict and its page."""
    services = project.services.values()
    policies = project.drift_policies.values()
    alarms = {service.name: project.models[service.model].policy for service in services}
    return [
        *(_skew(project, service, days) for service in services),
        *(_performance(project, service, days) for service in services),
        *(_drift(project, policy, days) for policy in policies),
        *(_drift_page(project, policy, alarms[policy.service]) for policy in policies),
    ]


class _Daily(TypedDict):
    """What the daily assets of this stage have in common; typed, so that the decorator stays so."""

    partitions_def: dg.DailyPartitionsDefinition
    backfill_policy: dg.BackfillPolicy
    automation_condition: dg.AutomationCondition[dg.AssetKey]
    metadata: dict[str, Any]
    group_name: str


def _daily(days: dg.DailyPartitionsDefinition) -> _Daily:
    return {
        "partitions_def": days,
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "automation_condition": each_day(),
        "metadata": {"fresh_within_hours": 26},
        "group_name": GROUP,
    }


def _skew(project: Project, service: Service, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    spec = project.models[service.model]
    views, stored = {view.name: view for view in project.views_of(spec)}, project.feature_views_of(spec)
    tables = dict.fromkeys(table for view in stored for table in view.sources)
    key = asset_keys.skew(service.name)

    @dg.asset(
        key=key,
        deps=[asset_keys.predictions(service.name), *map(asset_keys.raw, tables)],
        check_specs=[
            dg.AssetCheckSpec(
                EQUAL,
                asset=key,
                blocking=True,  # of promotions, which are all that stands behind it
                description="No served value differs from its recomputation; while one does, nothing is promoted.",
            )
        ],
        description=f"Every vector that {service.name} served, recomputed from the raw tables by brute force: the "
        f"values that differ in any bit.",
        kinds=asset_keys.kinds(key, "deltalake", "polars"),
        owners=[service.owner],
        **_daily(days),
    )
    def skew(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
        clock: dg.ResourceParam[Clock],
        forgotten: dg.ResourceParam[Forgotten],
    ) -> _Events:
        span = days_of(context)
        answers = lake.read(f"predictions/{service.name}", first=span[0], last=span[-1])
        chosen = sampled(answers, service.skew_share)
        served = given_since(chosen, forgotten.answers_compared_from)
        start = day_start(span[0], project.timezone)
        frames = read_for_recall(stored, project, lake, start, day_start(span[-1], project.timezone), GRID)
        compared, differing = compare(served, views, frames)
        found = telling_of_others(skew_verdict(compared, differing), chosen.height - served.height)
        note_skew(ledger, service.name, f"{span[0]}..{span[-1]}", clock.now(), found)
        asked_on = served.select("prediction_id", PARTITION).unique("prediction_id")
        rows = differing.join(asked_on, on="prediction_id", how="left", maintain_order="left")
        lake.replace(f"skew/{service.name}", rows, span)
        yield dg.MaterializeResult(metadata={**metadata.table(rows), **metadata.verdict(found)})
        yield metadata.check(found, name=EQUAL, blocking=True, extra={"examples": metadata.rows(differing)})

    return skew


def _performance(project: Project, service: Service, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_keys.performance(service.name),
        deps=[asset_keys.predictions(service.name), asset_keys.labels(service.name)],
        description=f"Loss of {service.name}'s answers by the day they were asked and by model version, with the share "
        f"of truths that have arrived, as known at the end of each day.",
        kinds=asset_keys.kinds(asset_keys.performance(service.name), "deltalake", "polars"),
        owners=[service.owner],
        **_daily(days),
    )
    def performance(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[Any]:
        span = days_of(context)
        rows = pl.concat(_cohorts_known_on(day, lake, service.name, project.timezone) for day in span)
        lake.replace(f"performance/{service.name}", rows, span)
        history = newest(lake.read(f"performance/{service.name}"))
        last = history.filter(pl.col("log_loss").is_not_null()).tail(1).to_dicts()
        told = {name: value for row in last for name, value in row.items() if isinstance(value, float)}
        plot = (
            {"plot": metadata.image(performance_plot(history), "log-loss by day")}
            if last and span[-1].day in (1, 15)
            else {}
        )
        return dg.MaterializeResult(metadata={**metadata.table(rows), **metadata.figures(told), **plot})

    return performance


def _cohorts_known_on(day: date, lake: Lake, service: str, timezone: str) -> pl.DataFrame:
    first = first_followed(day)
    predictions = lake.read(f"predictions/{service}", first=first, last=day)
    labels = lake.read(f"labels/{service}", first=first, last=day)
    return cohorts(predictions, labels, timezone).with_columns(pl.lit(day).alias(PARTITION))


def _drift(project: Project, policy: DriftPolicy, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    key = asset_keys.drift(policy.name)

    @dg.asset(
        key=key,
        deps=[asset_keys.predictions(policy.service)],
        check_specs=[dg.AssetCheckSpec(STEADY, asset=key, description="No served feature changed sharply.")],
        description=f"{policy.description} Jensen-Shannon distance of each feature that {policy.service} served.",
        kinds=asset_keys.kinds(key, "deltalake", "polars"),
        owners=[project.services[policy.service].owner],
        **_daily(days),
    )
    def drifted(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
        clock: dg.ResourceParam[Clock],
    ) -> _Events:
        span = days_of(context)
        judged = [_drift_on(day, lake, policy) for day in span]
        for day, (verdict, _) in zip(span, judged, strict=True):
            note(ledger, project, policy.name, day, clock.now(), verdict)
        rows = pl.concat(
            table.with_columns(pl.lit(day).alias(PARTITION)) for day, (_, table) in zip(span, judged, strict=True)
        )
        # Of a range the newest day speaks, unless an earlier one failed: a later pass does not undo it.
        found = next((verdict for verdict, _ in reversed(judged) if verdict.state == "fail"), judged[-1][0])
        lake.replace(f"drift/{policy.name}", rows, span)
        yield dg.MaterializeResult(metadata={**metadata.table(rows), **metadata.verdict(found)})
        yield metadata.check(found, name=STEADY)

    return drifted


def _drift_on(day: date, lake: Lake, policy: DriftPolicy) -> tuple[Verdict, pl.DataFrame]:
    # Days with too few answers do not count as reference; where there are such, the look back is twice as long.
    for back in (policy.reference_days, 2 * policy.reference_days):
        first = day - timedelta(days=back)
        served, days = served_features(lake.read(f"predictions/{policy.service}", first=first, last=day))
        if len(reference(days, day, policy)) == policy.reference_days:
            break
    return drift(served, days, day, policy)


def served_features(predictions: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """One column a served feature, and the day of each row; of the answers with the newest answer's features.

    A feature that an earlier model version did not have is not one that was missing.
    """
    rows = predictions.sort("asked_at", "prediction_id")
    newest = rows.tail(1).select("feature_names")
    rows = rows.join(newest, on="feature_names", how="semi").unique("prediction_id", keep="first", maintain_order=True)
    named = rows.select("prediction_id", PARTITION).join(
        named_features(rows), on="prediction_id", maintain_order="left"
    )
    return named.drop("prediction_id", PARTITION), named[PARTITION]


def _drift_page(project: Project, policy: DriftPolicy, retrain_policy: str | None) -> dg.AssetsDefinition:
    alarm = [asset_keys.retrain(retrain_policy)] if retrain_policy else []

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
        first = day_of(clock.now(), project.timezone) - timedelta(days=page_days(policy))
        served, days = served_features(lake.read(f"predictions/{policy.service}", first=first))
        target = profile.reports_path / f"drift-{policy.name}-{clock.now():%Y-%m-%d}.html"
        found = write_drift_page(served, days, policy, target)
        return dg.MaterializeResult(metadata={"page": dg.MetadataValue.path(str(target)), "reason": found})

    return drift_page
