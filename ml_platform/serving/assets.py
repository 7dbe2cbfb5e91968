"""Stage 7 as assets: the prediction log in the lake, deployments, batch predictions."""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.automation.conditions import after_anything, after_upstream, each_day
from ml_platform.automation.gates import reads
from ml_platform.automation.partitions import days_of
from ml_platform.resources import metadata
from ml_platform.resources.profiles import Profile
from ml_platform.serving.batch import score_tomorrow
from ml_platform.serving.champion import load_champion
from ml_platform.serving.deployment import deploy
from ml_platform.serving.rollout_files import rollout_file
from ml_platform.serving.rollout_page import shown
from ml_platform.serving.rollout_way import Way
from ml_platform.sources.columns import refuse_use
from ml_platform.spec import ModelSpec, Project, RolloutPolicy, Service
from ml_platform.spec.calendar import days_shown
from ml_platform.spec.lineage import spine_columns
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.prediction_log import PredictionLog, Reading
from ml_platform.stores.tracking import Tracking

GROUP = "serving"
# A group of its own, so that the graph of groups runs one way: log, monitoring, decisions, training, ..., serving.
LOG_GROUP = "prediction_log"
ALIASES, INTACT = "aliases_as_recorded", "ledger_intact"


def serving_assets(project: Project, days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """For every service: its log (from outside), the log's two tables, the deployment, the batch predictions, and the
    rollout if it has one."""
    made: list[dg.AssetsDefinition | dg.AssetSpec] = []
    for service in project.services.values():
        spec = project.models[service.model]
        made += [
            _log(service),
            _predictions(project, service, days),
            _labels(project, service, days),
            _service(project, service, spec),
            _batch_predictions(project, service, spec, days),
        ]
    return [*made, *(_rollout(project, policy) for policy in project.rollout_policies.values())]


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


def _service(project: Project, service: Service, spec: ModelSpec) -> dg.AssetsDefinition:
    key = asset_keys.service(service.name)
    contests = [asset_keys.contest(spec.name)] if project.challengers_of(spec) else []
    checks = {
        ALIASES: f"MLflow's aliases of {spec.name} are those that the ledger says the platform put there.",
        INTACT: "The lines of the ledger are those that were written, all of them, in this order.",
    }

    @dg.asset(
        key=key,
        description=f"{service.description} Serves the champion of {service.model}; the gate's verdict, and a person "
        f"where the model asks for one, decide which version that is. Looked at every day.",
        deps=[
            asset_keys.evaluation(service.model),
            # Its blocking check holds a promotion back while served and recomputed values differ.
            dg.AssetDep(asset_keys.skew(service.name), partition_mapping=dg.LastPartitionMapping()),
            *contests,
        ],
        automation_condition=after_anything(*contests),  # a contest is held when somebody asks for it
        check_specs=[dg.AssetCheckSpec(name, asset=key, description=what) for name, what in checks.items()],
        kinds=asset_keys.kinds(key, "bentoml", "mlflow"),
        owners=[service.owner],
        group_name=GROUP,
    )
    def deployment(
        tracking: dg.ResourceParam[Tracking],
        ledger: dg.ResourceParam[Ledger],
        clock: dg.ResourceParam[Clock],
        profile: dg.ResourceParam[Profile],
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        way = Way.of(project, service.name, profile)
        done = deploy(service, tracking, ledger, clock.now(), approval=spec.gate.approval, way=way)
        told = {"champion": done.champion or "none yet", "action": done.action, "reason": done.reason}
        yield dg.MaterializeResult(metadata=told, data_version=dg.DataVersion(done.champion or "none"))
        yield metadata.check(done.aliases, name=ALIASES)
        yield metadata.check(done.ledger, name=INTACT)

    return deployment


def _rollout(project: Project, policy: RolloutPolicy) -> dg.AssetsDefinition:
    key = asset_keys.rollout(policy.name)

    @dg.asset(
        key=key,
        description=f"{policy.description} Where the rollout of {policy.service} stands: begun by the deployment, "
        f"moved by the evidence that its referee gathers beside the service, also while nothing runs here.",
        deps=[asset_keys.service(policy.service)],
        automation_condition=after_upstream(),
        kinds=asset_keys.kinds(key, "bentoml", "matplotlib"),
        owners=[project.services[policy.service].owner],
        group_name=GROUP,
    )
    def rollout(profile: dg.ResourceParam[Profile]) -> dg.MaterializeResult[Any]:
        file = rollout_file(profile, policy.service)
        stands = file.read()
        if stands is None:
            return dg.MaterializeResult(metadata={"phase": "none yet"}, data_version=dg.DataVersion("none"))
        told, target = shown(policy, stands, file, profile.reports_path)
        plot = {"evidence": metadata.image(told.pop("picture"), "evidence over time")} if "picture" in told else {}
        version = dg.DataVersion(f"{stands.number}.{stands.change}")
        page = dg.MetadataValue.path(str(target))
        return dg.MaterializeResult(metadata={**told, **plot, "page": page}, data_version=version)

    return rollout


def _batch_predictions(
    project: Project, service: Service, spec: ModelSpec, days: dg.DailyPartitionsDefinition
) -> dg.AssetsDefinition:
    upstream = [asset_keys.raw(spec.task.spine), *map(asset_keys.features, spec.views)]
    columns, key = spine_columns(spec, project.tables), asset_keys.batch_predictions(service.name)

    @dg.asset(
        key=key,
        description=f"Tomorrow's {spec.task.spine}, scored at midnight by the champion that {service.name} serves.",
        deps=[*upstream, asset_keys.service(service.name)],
        metadata={"fresh_within_hours": 26, **reads(columns)},
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=each_day(),
        kinds=asset_keys.kinds(key, "deltalake", "polars"),
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
        refuse_use(lake, f"{key.to_user_string()} of {days_shown(span)}", columns, span, {task.spine: True})
        version = tracking.champion(spec.name)
        champion = load_champion(tracking, Ledger(profile.ledger_path), version, task, project.all_views, profile.home)
        rows = pl.concat(score_tomorrow(champion, project, task, lake, day) for day in span)
        lake.replace(f"batch_predictions/{service.name}", rows, span)
        return dg.MaterializeResult(metadata={**metadata.table(rows), "model_version": champion.version})

    return batch_predictions
