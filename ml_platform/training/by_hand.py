"""A training that a person starts to try parameters: measured and logged to MLflow, but registered nowhere.

It reads the training set that stands; only ``models/<name>`` makes challengers.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_platform import metrics
from ml_platform.spec import ModelSpec, Project, UnknownName
from ml_platform.stores.delta import Lake
from ml_platform.training.estimators import train
from ml_platform.training.steps import read_part
from ml_platform.training.training_set import HOLDOUT, LABEL, TRAIN
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


def try_out(lake: Lake, mlflow: Any, spec: ModelSpec, *, threads: int, site: Site) -> dict[str, float]:
    """Train on the training set's training part, log all to the open MLflow run, and answer the holdout's measures.

    mlflow: the module or dagster-mlflow's resource, with a run open.

    Raises:
        MissingHistory: the training set was never made.
    """
    model = train(spec, read_part(lake, spec, TRAIN), threads=threads, site=site)
    holdout = read_part(lake, spec, HOLDOUT)
    measures = metrics.measures(holdout[LABEL], model.predict(holdout))
    mlflow.log_params({"model": spec.name, "estimator": spec.estimator, **spec.parameters, **model.facts})
    mlflow.log_metrics({f"holdout_{name}": value for name, value in measures.items()})
    with tempfile.TemporaryDirectory() as draft:
        mlflow.log_artifacts(str(model.save(Path(draft))), "model")
    return measures
