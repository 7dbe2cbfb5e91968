"""Stage 7 as assets: the prediction log in the lake, deployments, batch predictions."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.automation.conditions import after_upstream, each_day
from ml_platform.automation.partitions import days_of
from ml_platform.resources import metadata
from ml_platform.resources.profiles import Profile
from ml_platform.serving.batch import score_tomorrow
from ml_platform.serving.champion import load_champion
from ml_platform.serving.deployment import deploy
from ml_platform.spec import ModelSpec, Project, Service
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.prediction_log import PredictionLog, Reading
from ml_platform.stores.tracking import Tracking

GROUP = "serving"
# A group of its own, so that the graph of groups runs one way: log, monitoring, decisions, training, ..., serving.
LOG_GROUP = "prediction_log"


def serving_assets(project: Project, days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """For every service: its log (from outside), the log's two tables, the deployment, the batch predictions."""
    made: list[dg.AssetsDefinition | dg.AssetSpec] = []
    for service in project.services.values():
        spec = project.models[service.model]
        made += [
            _log(service),
            _predictions(project, service, days),
            _labels(project, service, days),
            _service(service),
            _batch_predictions(project, service, spec, days),
        ]
    return made


def log_key(service: str) -> dg.AssetKey:
    """The running service's write-ahead log: written outside the graph, it closes the loop through the lake."""
    return dg.AssetKey(["log", service])


def _log(service: Service) -> dg.AssetSpec:
    return dg.AssetSpec(
        log_key(service.name),
        description=f"What the running service {service.name} answered and the truths posted to it; written by the "
        f"service itself, one file a process and day.",
        group_name=LOG_GROUP,
        kinds=asset_keys.kinds(log_key(service.name), "bentoml"),
        owners=[service.owner],
    )


def _predictions(project: Project, service: Service, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_keys.predictions(service.name),
        description=f"What {service.name} answered, by the day it was asked: probability, features as served, version.",
        deps=[log_key(service.name)],
        metadata={"fresh_within_hours": 26},
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=each_day(),
        kinds=asset_keys.kinds(asset_keys.predictions(service.name), "deltalake", "polars"),
        owners=[service.owner],
        group_name=LOG_GROUP,
    )
    def predictions(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], prediction_log: dg.ResourceParam[PredictionLog]
    ) -> dg.MaterializeResult[Any]:
        span = days_of(context)
        reading = prediction_log.read_predictions(service.name, first=span[0], last=span[-1])
        return _store(lake, f"predictions/{service.name}", reading, "asked_at", span, project.timezone)

    return predictions


def _labels(project: Project, service: Service, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_keys.labels(service.name),
        description=f"The truths about {service.name}'s predictions, by the day they became known.",
        deps=[log_key(service.name)],
        metadata={"fresh_within_hours": 26},
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=each_day(),
        kinds=asset_keys.kinds(asset_keys.labels(service.name), "deltalake", "polars"),
        owners=[service.owner],
        group_name=LOG_GROUP,
    )
    def labels(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], prediction_log: dg.ResourceParam[PredictionLog]
    ) -> dg.MaterializeResult[Any]:
        span = days_of(context)
        reading = prediction_log.read_labels(service.name, first=span[0], last=span[-1])
        return _store(lake, f"labels/{service.name}", reading, "known_at", span, project.timezone)

    return labels


def _store(
    lake: Lake, table: str, reading: Reading, time: str, days: Sequence[date], timezone: str
) -> dg.MaterializeResult[Any]:
    """Replace these days of a log's table; an empty day is said so, for the service may have been down."""
    rows = reading.frame.with_columns(pl.col(time).dt.convert_time_zone(timezone).dt.date().alias(PARTITION))
    version = lake.replace(table, rows, days)
    empty = sorted(set(days) - set(rows[PARTITION]))
    note = f"nothing on {', '.join(map(str, empty))}: the service was not asked, or was down" if empty else "complete"
    found: dict[str, Any] = {
        "doubles_dropped": reading.doubles,
        "torn_lines": reading.torn,
        "note": note,
        "table_version": version,
    }
    return dg.MaterializeResult(metadata={**metadata.table(rows), **found})


def _service(service: Service) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_keys.service(service.name),
        description=f"{service.description} Serves the champion of {service.model}; the gate's verdict decides which "
        f"version that is.",
        deps=[
            asset_keys.evaluation(service.model),
            # Its blocking check holds a promotion back while served and recomputed values differ.
            dg.AssetDep(asset_keys.skew(service.name), partition_mapping=dg.LastPartitionMapping()),
        ],
        automation_condition=after_upstream(),
        kinds=asset_keys.kinds(asset_keys.service(service.name), "bentoml", "mlflow"),
        owners=[service.owner],
        group_name=GROUP,
    )
    def deployment(
        tracking: dg.ResourceParam[Tracking], ledger: dg.ResourceParam[Ledger], clock: dg.ResourceParam[Clock]
    ) -> dg.MaterializeResult[Any]:
        done = deploy(service, tracking, ledger, clock.now())
        told = {"champion": done.champion or "none yet", "action": done.action, "reason": done.reason}
        return dg.MaterializeResult(metadata=told, data_version=dg.DataVersion(done.champion or "none"))

    return deployment


def _batch_predictions(
    project: Project, service: Service, spec: ModelSpec, days: dg.DailyPartitionsDefinition
) -> dg.AssetsDefinition:
    upstream = [asset_keys.raw(spec.task.spine), *map(asset_keys.features, spec.views)]

    @dg.asset(
        key=asset_keys.batch_predictions(service.name),
        description=f"Tomorrow's {spec.task.spine}, scored at midnight by the champion that {service.name} serves.",
        deps=[*upstream, asset_keys.service(service.name)],
        metadata={"fresh_within_hours": 26},
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=each_day(),
        kinds=asset_keys.kinds(asset_keys.batch_predictions(service.name), "deltalake", "polars"),
        owners=[service.owner],
        group_name=GROUP,
    )
    def batch_predictions(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        tracking: dg.ResourceParam[Tracking],
        profile: dg.ResourceParam[Profile],
    ) -> dg.MaterializeResult[Any]:
        span, task = days_of(context), spec.task
        version = tracking.champion(spec.name)
        champion = load_champion(tracking, version, task, project.all_views, profile.home)
        rows = pl.concat(score_tomorrow(champion, project, task, lake, day) for day in span)
        lake.replace(f"batch_predictions/{service.name}", rows, span)
        return dg.MaterializeResult(metadata={**metadata.table(rows), "model_version": champion.version})

    return batch_predictions
