"""Stage 3 as assets: skew and performance on late labels, day by day; profiles and drift stand beside this file."""

from collections.abc import Iterator
from datetime import date
from typing import Any, TypedDict

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.automation.conditions import each_day
from ml_platform.automation.partitions import days_of
from ml_platform.features.refresh import GRID, read_for_recall
from ml_platform.features.skew import compare, note_skew, sampled
from ml_platform.features.skew import verdict as skew_verdict
from ml_platform.features.skew_since import given_since, telling_of_others
from ml_platform.monitoring.drift_assets import drift_assets
from ml_platform.monitoring.performance import cohorts, first_followed, newest
from ml_platform.monitoring.plots import performance_plot
from ml_platform.monitoring.profile_assets import profile_assets
from ml_platform.resources import metadata
from ml_platform.spec import Project, Service
from ml_platform.spec.calendar import day_start
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.forgotten import Forgotten
from ml_platform.stores.ledger import Ledger

GROUP = "monitoring"
_Events = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]
EQUAL = "served_equals_recomputed"


def monitoring_assets(project: Project, days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """For every service its skew and performance; for every table its profiles; for every drift policy its verdict."""
    services = project.services.values()
    return [
        *(_skew(project, service, days) for service in services),
        *(_performance(project, service, days) for service in services),
        *profile_assets(project, days),
        *drift_assets(project, days),
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
