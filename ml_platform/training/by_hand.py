"""A training that a person starts to try parameters: measured and logged to MLflow, but registered nowhere.

It reads the training set that stands; only ``models/<name>`` makes challengers. Its run shows the same datasets as the
run of a version that was made of that set, so MLflow's page of a dataset lists both.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform import metrics
from ml_platform.spec import ModelSpec, Project, UnknownName
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.tracking_entries import Dataset
from ml_platform.training.described import datasets
from ml_platform.training.estimators import train
from ml_platform.training.steps import gathered_from, read_set, table_of
from ml_platform.training.training_set import HOLDOUT, LABEL, PART, TRAIN
from ml_platform.training.workers import Site


def with_parameters(project: Project, model: str, parameters: Mapping[str, Any]) -> ModelSpec:
    """The declared model with some parameters replaced.

    Raises:
        UnknownName: no model of that name is declared.
    """
    if model not in project.models:
        raise UnknownName("model", model, project.models)
    spec = project.models[model]
    return replace(spec, parameters={**spec.parameters, **parameters})


def try_out(lake: Lake, ledger: Ledger, mlflow: Any, spec: ModelSpec, *, threads: int, site: Site) -> dict[str, float]:
    """Train on the training set's training part, log all to the open MLflow run, and answer the holdout's measures.

    mlflow: the module or dagster-mlflow's resource, with a run open.

    Raises:
        MissingHistory: the training set was never made.
        StateError: nobody wrote down what the training set that stands was made of, or it is not that.
    """
    rows, made_of = _standing(lake, ledger, spec)
    holdout = rows.filter(pl.col(PART) == HOLDOUT)
    model = train(spec, rows.filter(pl.col(PART) == TRAIN), threads=threads, site=site)
    measures = metrics.measures(holdout[LABEL], model.predict(holdout))
    mlflow.log_params({"model": spec.name, "estimator": spec.estimator, **spec.parameters, **model.facts})
    mlflow.log_metrics({f"holdout_{name}": value for name, value in measures.items()})
    # Through the client: `mlflow.log_input` takes a dataset that it digests itself.
    inputs = [each.as_input() for each in made_of]
    mlflow.MlflowClient().log_inputs(mlflow.active_run().info.run_id, datasets=inputs, models=[])
    with tempfile.TemporaryDirectory() as draft:
        mlflow.log_artifacts(str(model.save(Path(draft))), "model")
    return measures


def _standing(lake: Lake, ledger: Ledger, spec: ModelSpec) -> tuple[pl.DataFrame, list[Dataset]]:
    """The training set's rows, and its parts as MLflow shows them."""
    table = table_of(spec)
    version = lake.version(table)
    # As of that version: somebody may be gathering a new set meanwhile.
    rows = read_set(lake.as_of({table: version}), spec)
    return rows, datasets(table, lake.uri(table), version, gathered_from(ledger, spec, rows), rows.schema)
