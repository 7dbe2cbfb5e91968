"""Versions for a drill: one that is good, and four that are wrong in a way that happens.

Each is trained on the training set that stands, and saved and registered like any other version.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ml_platform.spec import ModelSpec, scikit
from ml_platform.training.estimators import train
from ml_platform.training.model import Model
from ml_platform.training.training_set import LABEL

_AN_HOUR = 60  # minutes
_MEASURED = 5  # numbers: those that one source measures
_GUESSED = 0.5  # share of the labels that the quietly worse one learned wrongly
_SEED = 20131101
_TREES = 400
_CALM = 0.9  # quantile of the champion's most important number


@dataclass(frozen=True, kw_only=True)
class Base:
    """What they are made of: the served model's declaration and training rows, and its champion."""

    spec: ModelSpec
    rows: pl.DataFrame
    champion: Model
    threads: int


@dataclass(frozen=True, kw_only=True)
class Challenger:
    """A version to ship. good: whether it ought to be promoted."""

    name: str
    wrong: str
    make: Callable[[Base], Model]
    good: bool = False


def _numbers(base: Base) -> list[str]:
    """The champion's numeric inputs, the most important first."""
    numeric = [name for name in base.champion.encoding.inputs if base.rows.schema[name].is_numeric()]
    return sorted(numeric, key=lambda name: -base.champion.importances.get(name, 0.0))


def _wrong_unit(base: Base) -> Model:
    rows = base.rows.with_columns(pl.col(_numbers(base)[:_MEASURED]) / _AN_HOUR)
    return train(base.spec, rows, threads=base.threads)


def _slow(base: Base) -> Model:
    forest = {"n_estimators": _TREES, "min_samples_leaf": 20, "random_state": _SEED, "n_jobs": 1}
    steps = scikit(("sklearn.impute.SimpleImputer", {}), ("sklearn.ensemble.ExtraTreesClassifier", forest))
    return train(replace(base.spec, estimator="sklearn", parameters=steps), base.rows, threads=base.threads)


def _erring(base: Base) -> Model:
    """Splines that refuse what lies outside of what they were shown: calm hours, and one in which nothing was."""
    first = _numbers(base)[0]
    calm = base.rows.filter(pl.col(first) <= pl.col(first).quantile(_CALM))
    numeric = [name for name in base.champion.encoding.inputs if base.rows.schema[name].is_numeric()]
    nothing = calm.head(1).with_columns(pl.lit(0).cast(base.rows.schema[name]).alias(name) for name in numeric)
    steps = scikit(
        ("sklearn.impute.SimpleImputer", {}),
        ("sklearn.preprocessing.SplineTransformer", {"n_knots": 2, "degree": 1, "extrapolation": "error"}),
        ("sklearn.preprocessing.StandardScaler", {}),
        ("sklearn.linear_model.LogisticRegression", {"max_iter": 200}),
    )
    rows = pl.concat([calm, nothing])
    return train(replace(base.spec, estimator="sklearn", parameters=steps), rows, threads=base.threads)


def _quietly_worse(base: Base) -> Model:
    draw = np.random.default_rng(_SEED)
    guessed = pl.Series(draw.random(base.rows.height) < _GUESSED)
    shuffled = base.rows[LABEL].shuffle(seed=_SEED)
    rows = base.rows.with_columns(pl.when(guessed).then(shuffled).otherwise(pl.col(LABEL)).alias(LABEL))
    return train(base.spec, rows, threads=base.threads)


def _good(base: Base) -> Model:
    return train(replace(base.spec, seed=base.spec.seed + 1), base.rows, threads=base.threads)


ALL = (
    Challenger(
        name="wrong unit",
        wrong=f"it was trained on hours and is asked with minutes, in its {_MEASURED} most important numbers",
        make=_wrong_unit,
    ),
    Challenger(name="slow", wrong=f"{_TREES} random trees, asked one after the other", make=_slow),
    Challenger(
        name="erring", wrong="it fails at what lies outside of the calm hours that it was trained on", make=_erring
    ),
    Challenger(name="quietly worse", wrong=f"{_GUESSED:.0%} of its labels were shuffled", make=_quietly_worse),
    Challenger(name="good", wrong="nothing: the declared model with another seed", make=_good, good=True),
)
