"""Gradient-boosted trees: LightGBM, stored as its own text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import ModelRefused, ModelSpec
from ml_platform.training.contributions import Contributions
from ml_platform.training.encoding import Encoding, Floats, Value
from ml_platform.training.model import Model, read_schema, stopping_split
from ml_platform.training.single_row import SingleRow, refuse_differing
from ml_platform.training.training_set import LABEL
from ml_platform.training.workers import Site

MODEL_FILE = "model.txt"
MOST_ROUNDS, PATIENCE = 1000, 30
_ALONE = 512  # up to so many rows one thread is quicker than waking the others
_ONE_BY_ONE = 64  # up to so many rows as many single ones are quicker than a matrix


@dataclass(frozen=True, kw_only=True)
class Trees(Model):
    """A LightGBM booster."""

    estimator: ClassVar[str] = "lightgbm"
    file: ClassVar[str] = MODEL_FILE
    booster: Any

    def predict_matrix(self, matrix: Floats) -> Floats:
        """P(label = 1); bit-identical for any number of threads and neighbours."""
        if not len(matrix):
            return np.empty(0)
        threads = {"num_threads": 1} if len(matrix) <= _ALONE else {}
        return np.asarray(self.booster.predict(matrix, validate_features=False, **threads))

    @cached_property
    def single(self) -> SingleRow:
        """The quick way for one encoded row."""
        return SingleRow(self.booster, len(self.encoding.inputs))

    def predict_row(self, row: Sequence[Value]) -> float:
        """P(label = 1), without a matrix; bit for bit as ``predict_matrix``."""
        try:
            return self.single(self.encoding.codes(row))
        except (TypeError, ValueError):
            return super().predict_row(row)  # which says what is wrong

    def predict_ordered(self, rows: Sequence[Sequence[Value]]) -> list[float]:
        """P(label = 1)."""
        if len(rows) <= _ONE_BY_ONE:
            return [self.predict_row(row) for row in rows]
        return super().predict_ordered(rows)

    def contributions(self, row: Floats) -> Contributions:
        """LightGBM's own: Shapley values of the trees (Lundberg et al. 2018), exact for the trees as they are."""
        asked = row.reshape(1, -1)
        found = np.asarray(self.booster.predict(asked, validate_features=False, num_threads=1, pred_contrib=True))[0]
        raw = self.booster.predict(asked, validate_features=False, num_threads=1, raw_score=True)
        return Contributions(
            values=found[:-1],
            base=float(found[-1]),
            raw=float(np.asarray(raw)[0]),
            scale="log-odds",
            method="Shapley values of the trees (LightGBM's pred_contrib)",
            baseline="the mean raw score over the rows that the trees were trained on",
            baselines=(None,) * len(row),
        )

    def weights(self) -> Floats:
        """The leaf values."""
        text = self.booster.model_to_string(num_iteration=-1)
        found = [line.removeprefix("leaf_value=") for line in text.splitlines() if line.startswith("leaf_value=")]
        return np.array(" ".join(found).split(), dtype=np.float64)

    def _write(self, path: Path) -> None:
        path.write_text(self.booster.model_to_string(num_iteration=-1))


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """After how many rounds the log-loss was lowest, that loss, and the loss after each round that was tried."""

    rounds: int
    loss: float
    curve: Sequence[float]

    def curves(self) -> dict[str, Sequence[float]]:
        """As a model names it."""
        return {"stopping_log_loss_by_round": self.curve}


def train_trees(spec: ModelSpec, rows: pl.DataFrame, *, threads: int, site: Site | None = None) -> Trees:
    """Find the number of rounds on the newest rows, then train so many rounds on all of them.

    ``spec.parameters`` are LightGBM's. The result is the same, bit for bit, for the same rows, parameters and seed,
    whatever the number of threads; by workers of a Ray cluster, for their number.

    Raises:
        TooFewLabels: too little to fit or to stop on.
        PlatformError: workers were started as often as declared, and failed.
    """
    fit, stop = stopping_split(rows)
    if spec.compute == "ray":
        from ml_platform.training.ray_trees import fit_together

        assert site is not None, "whoever trains on a cluster says where it is"
        return fit_together(spec, rows, fit, stop, site.cluster)
    found = find_rounds(spec, rows, fit, stop, threads=threads)
    told = {"stopping_log_loss": found.loss}
    return replace(fit_trees(spec, rows, found.rounds, threads=threads, facts=told), curves=found.curves())


def find_rounds(
    spec: ModelSpec, rows: pl.DataFrame, fit: NDArray[np.int64], stop: NDArray[np.int64], *, threads: int
) -> Rounds:
    """Learn from ``fit`` rows until the loss on ``stop`` rows gets no better."""
    # Both parts encode alike: what the fit part has never seen is missing to it.
    return stopped(Encoding.learn(spec, rows[fit]), rows[fit], rows[stop], parameters_of(spec, threads))


def stopped(encoding: Encoding, fit: pl.DataFrame, stop: pl.DataFrame, parameters: Mapping[str, Any]) -> Rounds:
    """The same, as ``encoding`` encodes the rows."""
    import lightgbm as lgb

    fitted = dataset(encoding, fit, parameters)
    watched = dataset(encoding, stop, parameters, reference=fitted)
    seen: dict[str, Any] = {}
    booster = lgb.train(
        dict(parameters),
        fitted,
        num_boost_round=MOST_ROUNDS,
        valid_sets=[watched],
        valid_names=["stop"],
        callbacks=[lgb.early_stopping(PATIENCE, verbose=False), lgb.record_evaluation(seen)],
    )
    curve = seen["stop"]["binary_logloss"]
    return Rounds(rounds=booster.best_iteration, loss=float(curve[booster.best_iteration - 1]), curve=curve)


def fit_trees(
    spec: ModelSpec, rows: pl.DataFrame, rounds: int, *, threads: int, facts: Mapping[str, Any] | None = None
) -> Trees:
    """Train exactly so many rounds on all rows."""
    import lightgbm as lgb

    parameters = parameters_of(spec, threads)
    encoding = Encoding.learn(spec, rows)
    booster = lgb.train(parameters, dataset(encoding, rows, parameters), num_boost_round=rounds)
    told = {"rounds": rounds, "rows": rows.height, "threads": threads, **(facts or {})}
    return trees(encoding, booster.model_to_string(num_iteration=-1), told)


def trees(encoding: Encoding, text: str, facts: Mapping[str, Any]) -> Trees:
    """Out of the booster's own text, so that what is judged is what will be loaded."""
    import lightgbm as lgb

    booster = lgb.Booster(model_str=text)
    gains = booster.feature_importance(importance_type="gain")
    shares = gains / gains.sum() if gains.sum() > 0 else gains
    return Trees(
        encoding=encoding,
        facts={**facts, "device": "cpu", "lightgbm": lgb.__version__},
        importances={name: float(share) for name, share in zip(encoding.inputs, shares, strict=True)},
        booster=booster,
    )


def load_trees(folder: Path) -> Trees:
    """A saved booster.

    Raises:
        ModelRefused: a file is missing or damaged, or single rows are not answered as many are.
    """
    import lightgbm as lgb

    schema = read_schema(folder)
    try:
        booster = lgb.Booster(model_str=(folder / MODEL_FILE).read_text())
    except (OSError, lgb.basic.LightGBMError) as error:
        raise ModelRefused(f"{folder / MODEL_FILE} is no LightGBM model ({error}); register the model again") from error
    if booster.feature_name() != schema["encoding"].inputs:
        raise ModelRefused(f"{folder}: {MODEL_FILE} and schema.json name different inputs; register the model again")
    loaded = Trees(
        encoding=schema["encoding"], facts=schema["facts"], importances=schema["importances"], booster=booster
    )
    refuse_differing(booster, loaded.single)
    return loaded


def parameters_of(spec: ModelSpec, threads: int) -> dict[str, Any]:
    """LightGBM's, with those that make it repeat."""
    # deterministic and force_row_wise: the same bits for any number of threads.
    ours = {"objective": "binary", "metric": "binary_logloss", "deterministic": True, "force_row_wise": True}
    return {**ours, "seed": spec.seed, "num_threads": threads, "verbosity": -1, **spec.parameters}


def dataset(encoding: Encoding, rows: pl.DataFrame, parameters: Mapping[str, Any], reference: Any = None) -> Any:
    """The rows as LightGBM's."""
    import lightgbm as lgb

    return lgb.Dataset(
        encoding.encoded(rows).to_arrow(),
        label=rows[LABEL].cast(pl.Float32).to_numpy(),
        categorical_feature=list(encoding.categories),
        params=dict(parameters),
        reference=reference,
    )
