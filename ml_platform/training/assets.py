"""Stage 4 as assets: for every model its training set and its newest version; and a job to try parameters by hand."""

import os
from base64 import b64encode
from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from ml_platform import asset_keys
from ml_platform.automation.conditions import after_upstream, on_alarm
from ml_platform.automation.gates import reads
from ml_platform.features.refresh import is_daily
from ml_platform.resources import metadata
from ml_platform.resources.metadata import mlflow_links
from ml_platform.resources.mlflow_run import end_mlflow_run
from ml_platform.resources.profiles import Profile
from ml_platform.spec import ModelSpec, Project
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import TRAINING
from ml_platform.stores.ledger_wants import heard_now
from ml_platform.stores.tracking import Tracking
from ml_platform.training.by_hand import try_out, with_parameters
from ml_platform.training.estimators import train
from ml_platform.training.lineage import column_types, raw_columns, training_columns
from ml_platform.training.manifest import declared, run_manifest, set_manifest
from ml_platform.training.search import search
from ml_platform.training.steps import (
    gather,
    gathered_for,
    gathered_from,
    note_gathering,
    read_set,
    refuse_empty_features,
    register_model,
    table_of,
)
from ml_platform.training.study import open_study
from ml_platform.training.study_plots import plots
from ml_platform.training.training_set import PART, TRAIN, content_hash
from ml_platform.training.workers import Site, refuse_site

GROUP = "training"
_ICONS = {"torch": "pytorch"}  # where Dagster calls a kind otherwise than we do


def training_assets(project: Project, days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """``training_sets/<model>`` and ``models/<model>`` of every declared model, ``studies/<model>`` where searched."""
    made = [make(project, spec) for spec in project.models.values() for make in (_training_set, _model)]
    return [*made, *(_study(spec, project.timezone) for spec in project.models.values() if spec.search)]


def _deadline(spec: ModelSpec) -> dict[str, float]:
    return {} if spec.fresh_within is None else {"fresh_within_hours": spec.fresh_within.total_seconds() / 3600}


def _upstream(project: Project, spec: ModelSpec) -> list[dg.AssetDep]:
    """Tables are looked at up to their last day; a reference table has no days."""
    stored = project.feature_views_of(spec)
    sources = (table for view in stored for table in view.sources)
    raw = dict.fromkeys([spec.task.spine, spec.task.label.table, *sources])
    tables = {asset_keys.raw(name): project.tables[name].partitioned for name in raw}
    tables |= {asset_keys.features(view.name): is_daily(view, project) for view in stored}
    tables |= {asset_keys.features(view.name): False for view in project.request_views_of(spec)}
    last = dg.LastPartitionMapping()
    return [dg.AssetDep(key, partition_mapping=last if daily else None) for key, daily in tables.items()]


def _training_set(project: Project, spec: ModelSpec) -> dg.AssetsDefinition:
    alarm = asset_keys.retrain(spec.policy) if spec.policy else None
    lineage = metadata.lineage(training_columns(spec, project), column_types(spec, project))

    @dg.asset(
        key=asset_keys.training_set(spec.name),
        description=f"The rows {spec.name} is trained and judged on: every question with the features known when it "
        f"was asked and the label learned since. {spec.task.description}",
        deps=[*_upstream(project, spec), *([alarm] if alarm else [])],
        # Another declaration asks the decision, which gives its reason.
        automation_condition=on_alarm(alarm, new_code=False) if alarm else None,
        code_version=declared(project, spec),
        metadata={**_deadline(spec), **lineage, **reads(raw_columns(spec, project))},
        kinds=asset_keys.kinds(asset_keys.training_set(spec.name), "deltalake", "polars"),
        owners=[spec.owner],
        group_name=GROUP,
    )
    def training_set(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
        clock: dg.ResourceParam[Clock],
    ) -> dg.MaterializeResult[Any]:
        # Read before the rows: a retraining that is decided meanwhile wants rows that this set may lack.
        answers = heard_now(ledger, spec.name)
        found = gather(lake, project, spec, clock.now())
        version = lake.replace(table_of(spec), found.rows, None)
        manifest = set_manifest(project, spec, found.rows, found.tables, found.maturity, clock.now())
        note_gathering(ledger, spec, context.run_id, clock.now(), answers, manifest)
        told: dict[str, Any] = {
            **manifest.bounds,
            **{f"{part}_rows": rows for part, rows in manifest.rows.items()},
            "label_maturity": manifest.label_maturity,
            "content_hash": manifest.content_hash,
            "table_version": version,
            "read_versions": {name: table.version for name, table in manifest.tables.items()},
        }
        return dg.MaterializeResult(
            metadata={**metadata.table(found.rows), **told}, data_version=dg.DataVersion(manifest.content_hash[:16])
        )

    return training_set


def _model(project: Project, spec: ModelSpec) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_keys.model(spec.name),
        description=f"{spec.description} The newest version in the registry, where it is the challenger until the gate "
        f"has judged it.",
        deps=[asset_keys.training_set(spec.name)],
        automation_condition=after_upstream(),
        metadata=_deadline(spec),
        kinds=asset_keys.kinds(asset_keys.model(spec.name), _ICONS.get(spec.estimator, spec.estimator), "mlflow"),
        owners=[spec.owner],
        group_name=GROUP,
    )
    def model(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        tracking: dg.ResourceParam[Tracking],
        ledger: dg.ResourceParam[Ledger],
        clock: dg.ResourceParam[Clock],
        profile: dg.ResourceParam[Profile],
    ) -> dg.MaterializeResult[Any]:
        site = Site(checkpoints=profile.checkpoints_path, ray_address=profile.ray_address)
        refuse_site(spec, site)
        answers, rows, threads = gathered_for(ledger, spec), read_set(lake, spec), os.cpu_count() or 1
        made_of = gathered_from(ledger, spec, rows)
        learned = rows.filter(pl.col(PART) == TRAIN)
        refuse_empty_features(spec, learned)
        trained = train(spec, learned, threads=threads, site=site)
        manifest = run_manifest(spec, made_of, trained, threads, [profile.project, project.features])
        version = register_model(
            lake,
            tracking,
            trained,
            manifest,
            answers.decision,
            spec=spec,
            columns=rows.schema,
            run_id=context.run_id,
            asset=context.asset_key.to_user_string(),
            views=project.views_of(spec),
            pages=profile.pages,
        )
        body = {"version": version.version, **asdict(answers), "manifest": manifest.digest}
        ledger.write(TRAINING, spec.name, context.run_id, clock.now(), {**body, "files": dict(version.files)})
        told = {"version": version.version, **mlflow_links(tracking, version, profile.pages)}
        told |= {**version.tags, **metadata.figures(trained.facts)}
        return dg.MaterializeResult(metadata=told, data_version=dg.DataVersion(str(version.version)))

    return model


def _study(spec: ModelSpec, timezone: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_keys.study(spec.name),
        description=f"A search for better parameters of {spec.name} than the declared ones, made when somebody asks "
        f"for it. It changes nothing: a person writes what was found into the declaration.",
        deps=[asset_keys.training_set(spec.name)],
        kinds=asset_keys.kinds(asset_keys.study(spec.name), "optuna"),
        owners=[spec.owner],
        group_name=GROUP,
    )
    def study(lake: dg.ResourceParam[Lake], profile: dg.ResourceParam[Profile]) -> dg.MaterializeResult[Any]:
        rows, workers = read_set(lake, spec), os.cpu_count() or 1
        # Trials compare on the same rows only: another training set begins another study.
        name = f"{spec.name} on {content_hash(rows)[:12]}"
        learned, site = rows.filter(pl.col(PART) == TRAIN), Site(ray_address=profile.ray_address)
        found = search(spec, learned, name, profile.studies_path, timezone, workers=workers, site=site)
        drawn = plots(open_study(name, f"sqlite:///{profile.studies_path}", spec.seed))
        told = {
            "found": found.sentence(),
            "study": f"{name} in {profile.studies_path}",
            "best": dg.MetadataValue.json(dict(found.best)),
            **metadata.figures({"log_loss": found.loss, "declared_log_loss": found.declared_loss, "gain": found.gain}),
            **{title: metadata.image(b64encode(png).decode(), title) for title, png in drawn.items()},
        }
        return dg.MaterializeResult(metadata=told)

    return study


class ByHand(dg.Config):
    """Which model, and parameters that replace the declared ones (``num_leaves: 31``, ``learning_rate: 0.1``)."""

    model: str
    parameters: dict[str, Any] = Field(default_factory=dict)


def by_hand_jobs(project: Project) -> list[dg.JobDefinition]:
    """The one job ``train_by_hand``; a project without models has none."""
    return [_train_by_hand(project)] if project.models else []


def _train_by_hand(project: Project) -> dg.JobDefinition:
    known = ", ".join(sorted(project.models))

    @dg.op(
        required_resource_keys={"mlflow", "lake", "ledger", "profile"},
        description=f"Train one of {known}, measure it on its holdout.",
    )
    def train_and_measure(context: dg.OpExecutionContext, config: ByHand) -> None:
        spec = with_parameters(project, config.model, config.parameters)
        resources, site = context.resources, Site(ray_address=context.resources.profile.ray_address)
        stores = (resources.lake, resources.ledger, resources.mlflow)
        measures = try_out(*stores, spec, threads=os.cpu_count() or 1, site=site)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
        context.log.info(f"{spec.name} on its holdout: {figures}")
        context.add_output_metadata(measures)

    @dg.job(
        name="train_by_hand",
        description=f"Try parameters of a model ({known}): trains on the training set that stands, logs to MLflow.",
        executor_def=dg.in_process_executor,  # one step; a process of its own would end the MLflow run early
        hooks={end_mlflow_run},
    )
    def train_by_hand() -> None:
        train_and_measure()

    return train_by_hand
