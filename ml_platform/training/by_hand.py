"""A training that a person starts from the UI or the command line to try parameters; dagster-mlflow keeps its run.

It reads the training set that stands, writes an MLflow run with the model and its measures on the holdout, and
registers nothing: only ``models/<name>`` makes challengers.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from ml_platform import metrics
from ml_platform.resources.mlflow_run import end_mlflow_run
from ml_platform.spec import ModelSpec, Project, UnknownName
from ml_platform.stores.delta import Lake
from ml_platform.training.estimators import train
from ml_platform.training.model import Model
from ml_platform.training.steps import read_part
from ml_platform.training.training_set import HOLDOUT, LABEL, TRAIN


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
        required_resource_keys={"mlflow", "lake"}, description=f"Train one of {known} and measure it on its holdout."
    )
    def train_and_measure(context: dg.OpExecutionContext, config: ByHand) -> None:
        lake: Lake = context.resources.lake
        spec = with_parameters(project, config.model, config.parameters)
        model = train(spec, read_part(lake, spec, TRAIN), threads=os.cpu_count() or 1)
        holdout = read_part(lake, spec, HOLDOUT)
        measures = metrics.measures(holdout[LABEL], model.predict(holdout))
        _log(context.resources.mlflow, spec, model, measures)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
        context.log.info(f"{spec.name} on {holdout.height} held-out rows: {figures}")
        context.add_output_metadata({**measures, "rows": holdout.height})

    @end_mlflow_run  # type: ignore[untyped-decorator]  # Dagster types it for ops only
    @dg.job(
        name="train_by_hand",
        description=f"Try parameters of a model ({known}): trains on the training set that stands, logs to MLflow.",
        executor_def=dg.in_process_executor,  # one step; a process of its own would end the MLflow run early
    )
    def train_by_hand() -> None:
        train_and_measure()

    return train_by_hand


def with_parameters(project: Project, model: str, parameters: Mapping[str, Any]) -> ModelSpec:
    """The declared model with some parameters replaced.

    Raises:
        UnknownName: no model of that name is declared.
    """
    if model not in project.models:
        raise UnknownName("model", model, project.models)
    spec = project.models[model]
    return replace(spec, parameters={**spec.parameters, **parameters})


def _log(mlflow: Any, spec: ModelSpec, model: Model, measures: Mapping[str, float]) -> None:
    mlflow.log_params({"model": spec.name, "estimator": spec.estimator, **spec.parameters, **model.facts})
    mlflow.log_metrics({f"holdout_{name}": value for name, value in measures.items()})
    with tempfile.TemporaryDirectory() as draft:
        mlflow.log_artifacts(str(model.save(Path(draft))), "model")
