"""What a fault would have cost, had nobody looked: answers on wrong features against answers on right ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.drills.clean_year import PROBABILITY
from ml_platform.spec import BusinessMetric, TooFewLabels
from ml_platform.training.training_set import LABEL


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of the same questions, answered on wrong features and on right ones.

    questions: that were asked; lost: that were not asked any more. changed: share (0..1) of the answers that differ by
    .001 and more. auc: wrong minus right; None: one class only. log_loss: likewise. business: by metric, what all
    answers together cost more, in the metric's unit.
    """

    questions: int
    lost: int
    changed: float
    auc: float | None
    log_loss: float
    business: Mapping[str, float]


_DIFFERS = 0.001


def cost(key: str, right: pl.DataFrame, wrong: pl.DataFrame, declared: Mapping[str, BusinessMetric]) -> Cost | None:
    """Compare answers (``key``, probability, label; null where there is no truth); None: nothing has a truth."""
    pairs = right.select(key, LABEL, right=PROBABILITY).join(wrong.select(key, wrong=PROBABILITY), on=key, how="left")
    judged = pairs.drop_nulls([LABEL, "wrong"])
    if judged.is_empty():
        return None
    truth, before, after = (judged[name].to_numpy() for name in (LABEL, "right", "wrong"))
    return Cost(
        questions=pairs.height,
        lost=int(pairs["wrong"].null_count()),
        changed=float(np.mean(np.abs(after - before) >= _DIFFERS)),
        auc=_difference_of_auc(truth, before, after),
        log_loss=metrics.log_loss(truth, after) - metrics.log_loss(truth, before),
        business={
            name: _spent(metric, truth, after) - _spent(metric, truth, before) for name, metric in declared.items()
        },
    )


def _difference_of_auc(truth: np.ndarray, before: np.ndarray, after: np.ndarray) -> float | None:
    try:
        return metrics.auc(truth, after) - metrics.auc(truth, before)
    except TooFewLabels:
        return None  # one class only: there is no order to judge


def _spent(metric: BusinessMetric, truth: np.ndarray, given: np.ndarray) -> float:
    return float(pl.DataFrame({LABEL: truth, PROBABILITY: given}).select(metric.value.sum()).item())
