"""What any model has to beat: the constant and logistic regression, learned from the same training rows.

Fitted here with NumPy in a fraction of a second: every evaluation needs them, and importing scikit-learn alone takes
longer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import ModelSpec, TooFewLabels
from ml_platform.training.encoding import Encoding
from ml_platform.training.training_set import LABEL

CONSTANT, LOGISTIC = "constant", "logistic"
Answer = Callable[[pl.DataFrame], NDArray[np.float64]]
_Floats = NDArray[np.float32]
_PENALTY = 1.0  # times half the squared length of the weights, as scikit-learn's C=1
_FARTHEST = 8.0  # standard deviations at which a number is cut off: one wild value may not decide
_PRIOR_ROWS = 20  # rows of the average that a category's own share of ones is mixed with
_CLOSE, _MOST_STEPS = 3e-3, 100  # the largest change of a weight at which the steps end, and how many there may be


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """Logistic regression on standardized numbers, each with a column that says whether it is missing, if any was.

    A category is the log-odds of its ones in training. columns: by input its mean, its deviation, whether it had gaps.
    weights: (columns + 1,), the intercept last.
    """

    encoding: Encoding
    odds: Mapping[str, Mapping[str, float]]
    columns: Mapping[str, tuple[float, float, bool]]
    weights: _Floats

    def predict(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        """P(label = 1) of each row.

        Raises:
            ModelRefused: the rows lack an input.
        """
        design = _design(_numbers(self.encoding, self.odds, rows), self.columns)
        logits = (design @ self.weights).astype(np.float64)
        return 1 / (1 + np.exp(-logits))


def baselines(spec: ModelSpec, rows: pl.DataFrame) -> dict[str, Answer]:
    """Name -> what answers rows with probabilities. rows: of the training part.

    Raises:
        TooFewLabels: fewer than two classes.
    """
    if rows[LABEL].n_unique() < 2:
        raise TooFewLabels(
            f"model {spec.name}: the {rows.height} training rows hold fewer than two classes, so there is nothing to "
            f"learn; wait for labels or take a longer train_window"
        )
    share = float(rows[LABEL].cast(pl.Float64).to_numpy().mean())
    return {CONSTANT: lambda asked: np.full(asked.height, share), LOGISTIC: fit_logistic(spec, rows).predict}


def fit_logistic(
    spec: ModelSpec, rows: pl.DataFrame, *, close: float = _CLOSE, most_steps: int = _MOST_STEPS
) -> Logistic:
    """Minimize log-loss plus penalty (ridge), until a step changes no weight by ``close`` or after ``most_steps``."""
    encoding, labels = Encoding.learn(spec, rows), rows[LABEL].cast(pl.Float32)
    odds = {name: _odds(rows[name], labels) for name in encoding.categories}
    numbers = _numbers(encoding, odds, rows)
    means, spreads = numbers.mean().row(0), numbers.std(ddof=0).row(0)
    gaps = [count > 0 for count in numbers.null_count().row(0)]
    # An input that is null in every row has neither mean nor deviation; one that never varies, no deviation.
    told = [(mean or 0.0, spread or 1.0, gap) for mean, spread, gap in zip(means, spreads, gaps, strict=True)]
    columns = dict(zip(numbers.columns, told, strict=True))
    weights = _minimized(_design(numbers, columns), labels.to_numpy(), close, most_steps)
    return Logistic(encoding=encoding, odds=odds, columns=columns, weights=weights)


def _odds(values: pl.Series, labels: pl.Series) -> dict[str, float]:
    """Category -> log-odds of its ones, drawn to the average where its rows are few."""
    share = float(labels.to_numpy().mean())
    found = pl.DataFrame({"value": values, "label": labels}).drop_nulls("value").group_by("value")
    mixed = (pl.col("label").sum() + _PRIOR_ROWS * share) / (pl.len() + _PRIOR_ROWS)
    return dict(found.agg((mixed / (1 - mixed)).log()).sort("value").iter_rows())


def _numbers(encoding: Encoding, odds: Mapping[str, Mapping[str, float]], rows: pl.DataFrame) -> pl.DataFrame:
    """Every input as float32; what is not finite, and a category that training never saw, is null."""
    encoding.refuse_missing(rows)
    categories = [
        pl.col(name).replace_strict(list(known), list(known.values()), default=None, return_dtype=pl.Float32)
        for name, known in odds.items()
    ]
    numbers = rows.select(*categories, pl.col(list(encoding.numbers)).cast(pl.Float32))
    return numbers.select(pl.when(pl.all().is_finite()).then(pl.all()))


def _design(numbers: pl.DataFrame, columns: Mapping[str, tuple[float, float, bool]]) -> _Floats:
    """(rows, columns + 1), column by column in memory; a missing number stands at its mean."""
    width = len(columns) + sum(gap for _, _, gap in columns.values()) + 1
    design = np.ones((numbers.height, width), dtype=np.float32, order="F")
    place = 0
    for name, (mean, deviation, gap) in columns.items():
        standard = (numbers[name].fill_null(mean).to_numpy() - np.float32(mean)) / np.float32(deviation)
        np.clip(standard, -_FARTHEST, _FARTHEST, out=design[:, place])
        if gap:
            design[:, place + 1] = numbers[name].is_null().to_numpy()
        place += 1 + gap
    return design


def _minimized(design: _Floats, labels: _Floats, close: float, most_steps: int) -> _Floats:
    """Newton's method with the curvature at the start, doubled whenever a step goes too far; a step is two products.

    A quarter is the largest curvature that there can be (Boehning & Lindsay 1988), so it is doubled seldom.
    """
    share = labels.mean(dtype=np.float64)
    penalty = np.full(design.shape[1], _PENALTY, dtype=np.float32)
    penalty[-1] = 1e-6  # the intercept goes free; not quite, so that the curvature can be inverted
    products, scale = (design.T @ design).astype(np.float64), share * (1 - share)
    weights = np.zeros(design.shape[1], dtype=np.float32)
    weights[-1] = np.log(share / (1 - share))
    loss, gradient = _loss(design, labels, penalty, weights)
    for _ in range(most_steps):
        change = np.linalg.solve(scale * products + np.diag(penalty), gradient).astype(np.float32)
        next_loss, next_gradient = _loss(design, labels, penalty, weights - change)
        if next_loss > loss and scale < 1 / 4:
            scale = min(2 * scale, 1 / 4)
            continue
        weights, loss, gradient = weights - change, next_loss, next_gradient
        if np.abs(change).max() < close:
            break
    return weights


def _loss(design: _Floats, labels: _Floats, penalty: _Floats, weights: _Floats) -> tuple[float, _Floats]:
    """What is minimized, summed over the rows, and its gradient."""
    logits = design @ weights
    losses = np.logaddexp(0, logits) - labels * logits
    gradient = design.T @ (_chances(logits) - labels) + penalty * weights
    return float(losses.sum(dtype=np.float64) + (penalty * weights**2).sum() / 2), gradient


def _chances(logits: _Floats) -> _Floats:
    chances = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return chances.astype(np.float32, copy=False)
