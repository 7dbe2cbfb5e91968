"""Which code trains and loads which estimator."""

import os
from dataclasses import replace
from pathlib import Path

import polars as pl

from ml_platform.spec import ModelRefused, ModelSpec
from ml_platform.training.blend import blended, load_blend
from ml_platform.training.model import Model, read_schema
from ml_platform.training.workers import Site, refuse_site


def train(spec: ModelSpec, rows: pl.DataFrame, *, threads: int, site: Site | None = None) -> Model:
    """Train the spec's estimator on the rows of a training part.

    threads: of this process; workers have those that they are declared with. site: where workers can be started.

    Raises:
        TooFewLabels: too little to fit or to stop on.
        DeclarationError, PlatformError: it cannot be trained as declared, or not here; or its workers failed.
    """
    site = site or Site()
    refuse_site(spec, site)
    patient_threads()
    if spec.estimator == "torch":
        from ml_platform.training.torch_network import train_network

        return train_network(spec, rows, threads=threads, site=site)
    if spec.estimator == "sklearn":
        from ml_platform.training.scikit import train_scikit

        return train_scikit(spec, rows, threads=threads)
    if spec.estimator == "blend":
        members = [
            train(replace(spec, estimator=each["estimator"], parameters=each["parameters"]), rows, threads=threads)
            for each in spec.parameters["members"]
        ]
        return blended(members, [each["share"] for each in spec.parameters["members"]])
    from ml_platform.training.lightgbm_trees import train_trees

    return train_trees(spec, rows, threads=threads, site=site)


def load(folder: Path) -> Model:
    """The model saved in a folder; loads the estimator's library, nothing else that is heavy.

    Raises:
        ModelRefused: the folder holds no model, or a damaged one.
    """
    patient_threads()
    estimator = read_schema(folder)["estimator"]
    if estimator == "torch":
        from ml_platform.training.torch_network import load_network

        return load_network(folder)
    if estimator == "lightgbm":
        from ml_platform.training.lightgbm_trees import load_trees

        return load_trees(folder)
    if estimator == "sklearn":
        from ml_platform.training.scikit import load_scikit

        return load_scikit(folder)
    if estimator == "blend":
        return load_blend(folder, load)
    raise ModelRefused(f"{folder} holds a model of estimator {estimator!r}; known: lightgbm, torch, sklearn, blend")


def patient_threads() -> None:
    """Let OpenMP's threads sleep while they wait; it reads this once, when the estimator's library is first loaded.

    By default they spin: with another busy process on two cores, 70,000 rows took LightGBM 199 s instead of 32 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
