"""A classifier two-sample test (Lopez-Paz & Oquab 2017): can rows of a day be told from rows of its reference?

The effect size is the area under the ROC curve of rows that the classifier was not trained on, averaged over folds: it
is .5 in expectation where the two are alike, whatever the classifier, and 1 where they do not overlap. Rows of a day
share much (on real data, their weather), so a day is told from other days whether or not anything is wrong: for that
question see `joins.py`.
"""

import numpy as np
from numpy.typing import NDArray

from ml_platform import metrics
from ml_platform.spec.alarms import JointRule

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_RATE = 0.2  # few rounds, so each must count
_BINS = 63  # as fine as a thousand rows allow


def two_sample_auc(current: Floats, reference: Floats, rule: JointRule, seed: int) -> float | None:
    """How well rows of two samples are told apart, (rows, columns) each, NaN for missing; None: too few rows.

    The order of the columns matters only where the classifier finds two of them equally good.
    """
    chance = np.random.default_rng(seed)
    parts = [rows[sampled(np.arange(len(rows)), rule.rows, chance)] for rows in (current, reference)]
    if min(map(len, parts)) < max(rule.min_rows, 2 * rule.folds) or current.shape[1] == 0:
        return None
    values = np.concatenate(parts)
    labels = np.repeat([1.0, 0.0], [len(part) for part in parts])
    fold = np.concatenate([chance.permutation(np.arange(len(part)) % rule.folds) for part in parts])
    return float(np.mean([_fold_auc(values, labels, fold == one, rule, seed) for one in range(rule.folds)]))


def joint_distance(auc: float) -> float:
    """0: not to be told apart, 1: always; below .5 counts as 0. It is the AUC on the scale of the other distances."""
    return max(0.0, 2 * auc - 1)


def sampled(places: Ints, most: int, chance: np.random.Generator) -> Ints:
    """At most so many of the places, in their order."""
    return places if len(places) <= most else np.sort(chance.choice(places, most, replace=False))


def _fold_auc(values: Floats, labels: Floats, held: NDArray[np.bool_], rule: JointRule, seed: int) -> float:
    scores = trees(values[~held], labels[~held], rule, seed).predict(values[held], num_threads=1)
    return metrics.auc(labels[held], np.asarray(scores))


def trees(values: Floats, labels: Floats, rule: JointRule, seed: int):  # type: ignore[no-untyped-def]
    """A small LightGBM booster that tells label 1 from label 0; the same bits for the same input."""
    import lightgbm

    asked = {
        "objective": "binary",
        "num_leaves": rule.leaves,
        "learning_rate": _RATE,
        "max_bin": _BINS,
        "feature_fraction_bynode": 0.5,  # weak columns have their turn beside strong ones, and two meet in one tree
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    rows = lightgbm.Dataset(values, labels, params={"max_bin": _BINS, "verbosity": -1}, free_raw_data=True)
    return lightgbm.train(asked, rows, num_boost_round=rule.rounds)
