"""Performance on late labels as an asset, with its groups and what the project says a mistake costs."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.automation.conditions import each_day
from ml_platform.automation.partitions import days_of
from ml_platform.monitoring.asked import columns_of, followed
from ml_platform.monitoring.performance import (
    COHORT,
    changed_groups,
    cohorts,
    first_followed,
    joined,
    newest,
    sliced,
    truths_arrive,
)
from ml_platform.monitoring.plots import performance_plot
from ml_platform.resources import metadata
from ml_platform.spec import BusinessMetric, Project, Service, Slice
from ml_platform.stores.delta import PARTITION, Lake

ARRIVE = "truths_arrive"
_WEEK, _BEFORE, _LEAST = 7, 28, 100  # days judged, days they are compared with, labels of a group that is shown
_GROUP_OF = (COHORT, "model_version", "slice", "group")


def performance_assets(project: Project, days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """One ``performance/<service>`` for every service."""
    return [_performance(project, service, days) for service in project.services.values()]


def slices_table(service: str) -> str:
    """Where the lake holds the groups of a service's cohorts."""
    return f"performance_slices/{service}"


def _performance(project: Project, service: Service, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    key = asset_keys.performance(service.name)
    slices = followed(project.models[service.model].slices, project, project.models[service.model])
    business = _business(project, service)

    @dg.asset(
        key=key,
        deps=[asset_keys.predictions(service.name), asset_keys.labels(service.name)],
        check_specs=[dg.AssetCheckSpec(ARRIVE, asset=key, description="Old answers have their truths.")],
        description=f"Loss{''.join(f', {name}' for name in business)} of {service.name}'s answers by the day they were "
        f"asked and by model version, with the share of truths that have arrived, as known at the end of each day; "
        f"by group in {slices_table(service.name)}. What is called estimated needs no truth and decides nothing.",
        kinds=asset_keys.kinds(key, "deltalake", "polars"),
        owners=[service.owner],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=each_day(),
        metadata={"fresh_within_hours": 26},
        group_name="monitoring",
    )
    def performance(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        span = days_of(context)
        looks = [_look(day, lake, project, service, slices, business) for day in span]
        rows, grouped = (pl.concat(parts) for parts in zip(*looks, strict=True))
        lake.replace(f"performance/{service.name}", rows, span)
        lake.replace(slices_table(service.name), grouped, span)
        yield dg.MaterializeResult(metadata={**metadata.table(rows), **_told(lake, service.name, span[-1])})
        last = rows.filter(pl.col(PARTITION) == span[-1])
        yield metadata.check(truths_arrive(last, span[-1], service.truths_within), name=ARRIVE)

    return performance


def _business(project: Project, service: Service) -> Mapping[str, BusinessMetric]:
    policies = (policy for policy in project.rollout_policies.values() if policy.service == service.name)
    return {name: metric for policy in policies for name, metric in policy.metrics.items()}


def _look(
    day: date,
    lake: Lake,
    project: Project,
    service: Service,
    slices: Mapping[str, Slice],
    business: Mapping[str, BusinessMetric],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    first = first_followed(day)
    predictions = lake.read(f"predictions/{service.name}", first=first, last=day)
    labels = lake.read(f"labels/{service.name}", first=first, last=day)
    rows = joined(predictions, labels, project.timezone)
    names = {name for each in slices.values() for name in each.by.meta.root_names()}
    columns = columns_of(rows, names, project, project.models[service.model])
    found = cohorts(predictions, labels, project.timezone, business), sliced(rows, columns, slices, project.timezone)
    return tuple(frame.with_columns(pl.lit(day).alias(PARTITION)) for frame in found)  # type: ignore[return-value]


def _told(lake: Lake, service: str, last: date) -> dict[str, Any]:
    history = newest(lake.read(f"performance/{service}"))
    judged = history.filter(pl.col("log_loss").is_not_null())
    told = {name: value for row in judged.tail(1).to_dicts() for name, value in row.items() if isinstance(value, float)}
    first = last - timedelta(days=_WEEK + _BEFORE + 1)
    groups = newest(lake.read(slices_table(service), first=first, last=last), _GROUP_OF)
    rose = changed_groups(groups, last, _WEEK, _BEFORE, _LEAST)
    shown = {"groups_that_rose_most": metadata.rows(rose)} if rose.height else {}
    drawn = bool(told) and last.day in (1, 15)  # a picture a day would make the event log large
    plot = {"plot": metadata.image(performance_plot(history), "performance by day")} if drawn else {}
    return {**metadata.figures(told), **shown, **plot}
