"""How good probabilities are, on arrays of 0/1 labels and probabilities of 1.

Every function raises instead of answering when there is nothing to answer: ``TooFewLabels`` for empty input, or one
class only where two are needed; ``ValueError`` for labels other than 0 and 1 and for numbers that are no
probabilities.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_platform.spec import TooFewLabels

Floats = NDArray[np.float64]

_SMALLEST = float(np.finfo(np.float64).eps)  # keeps a sure but wrong answer's loss finite (36), as scikit-learn does


def row_losses(labels: ArrayLike, probabilities: ArrayLike) -> Floats:
    """The log-loss of each row, in nats."""
    truth, given = _checked(labels, probabilities)
    clipped = np.clip(given, _SMALLEST, 1 - _SMALLEST)
    return -np.where(truth == 1, np.log(clipped), np.log1p(-clipped))


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean log-loss in nats."""
    return float(row_losses(labels, probabilities).mean())


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared difference of label and probability."""
    truth, given = _checked(labels, probabilities)
    return float(np.mean((truth - given) ** 2))


def auc(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Area under the ROC curve: the share of (1, 0) pairs in the right order, a tie counting half."""
    truth, given = _checked(labels, probabilities, both_classes="the AUC")
    _, inverse, counts = np.unique(given, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    ones = truth.sum()
    return float((ranks[truth == 1].sum() - ones * (ones + 1) / 2) / (ones * (truth.size - ones)))


def pr_auc(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Average precision: the precision at each threshold, weighted by the recall it adds."""
    recall, precision = precision_recall(labels, probabilities)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def precision_recall(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats]:
    """(recall, precision) at each distinct probability, from the highest down."""
    hits, taken = _cumulated(*_checked(labels, probabilities, both_classes="the precision-recall curve"))
    return hits / hits[-1], hits / taken


def roc(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats]:
    """(false positive rate, true positive rate) at each distinct probability, from (0, 0) on."""
    hits, taken = _cumulated(*_checked(labels, probabilities, both_classes="the ROC curve"))
    misses = taken - hits
    return np.append(0.0, misses / misses[-1]), np.append(0.0, hits / hits[-1])


def expected_log_loss(probabilities: ArrayLike) -> float:
    """The log-loss that these probabilities would have, were they right: their mean entropy, in nats.

    An estimate without labels (confidence-based performance estimation). It cannot see what labels alone can tell, that
    the probabilities have become wrong.
    """
    given = np.clip(_checked(np.zeros(np.shape(probabilities)), probabilities)[1], _SMALLEST, 1 - _SMALLEST)
    return float(np.mean(-given * np.log(given) - (1 - given) * np.log1p(-given)))


def expected_auc(probabilities: ArrayLike) -> float:
    """The AUC to be expected of these probabilities, were they right: of all pairs of different rows, by the chance
    that the first is a one and the second a zero, the share in the right order, a tie counting half.

    See ``expected_log_loss``.

    Raises:
        TooFewLabels: no pair can have a one and a zero.
    """
    given = _checked(np.zeros(np.shape(probabilities)), probabilities)[1]
    values, inverse = np.unique(given, return_inverse=True)
    ones, zeros = np.bincount(inverse, given), np.bincount(inverse, 1 - given)
    own = np.bincount(inverse, given * (1 - given))  # a row is no pair with itself
    below = np.cumsum(zeros) - zeros
    pairs = ones.sum() * zeros.sum() - own.sum()
    if values.size == 0 or pairs <= 0:
        raise TooFewLabels("an expected AUC needs two rows of which one may be a one and the other a zero")
    return float((np.sum(ones * below) + np.sum(ones * zeros - own) / 2) / pairs)


def calibration_gap(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Absolute difference between the mean probability and the share of ones."""
    truth, given = _checked(labels, probabilities)
    return float(abs(given.mean() - truth.mean()))


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: the mean gap within bins of about equal size, a bin counting by its rows."""
    predicted, observed, rows = calibration_curve(labels, probabilities, bins)
    return float(np.average(np.abs(predicted - observed), weights=rows))


def lift(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats]:
    """(share of rows, lift) at each distinct probability from the highest down.

    Lift is the share of ones among the rows so far over that among all rows.
    """
    hits, taken = _cumulated(*_checked(labels, probabilities, both_classes="the lift"))
    return taken / taken[-1], hits / taken * taken[-1] / hits[-1]


def measures(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Every single figure by its name: AUC, log-loss, PR-AUC, Brier score, calibration gap and error."""
    functions = (auc, log_loss, pr_auc, brier, calibration_gap, calibration_error)
    return {function.__name__: function(labels, probabilities) for function in functions}


def calibration_curve(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 10
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """(mean probability, share of ones, rows) of each bin; bins of about equal size, empty ones left out."""
    truth, given = _checked(labels, probabilities)
    placed = equal_bins(given, bins)
    rows = np.bincount(placed, minlength=bins)
    kept = rows > 0
    predicted = np.bincount(placed, weights=given, minlength=bins)[kept] / rows[kept]
    observed = np.bincount(placed, weights=truth, minlength=bins)[kept] / rows[kept]
    return predicted, observed, rows[kept].astype(np.int64)


def equal_bins(probabilities: Floats, bins: int) -> NDArray[np.int64]:
    """The bin (from 0) of each probability; all bins hold about as many rows."""
    edges = np.percentile(probabilities, np.linspace(0, 1, bins + 1) * 100)
    return np.searchsorted(edges[1:-1], probabilities).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class PairedGain:
    """What the challenger wins in log-loss (nats a row; positive is better), with its 95 % interval.

    probability: share of resamples in which the gain exceeds the asked minimum.
    """

    mean: float
    low: float
    high: float
    probability: float
    rows: int
    days: int


def paired_gain(
    labels: ArrayLike,
    champion: ArrayLike,
    challenger: ArrayLike,
    days: ArrayLike,
    *,
    seed: int,
    min_gain: float = 0.0,
    resamples: int = 1000,
) -> PairedGain:
    """Champion's loss minus challenger's on the same rows, bootstrapped over whole days.

    Rows of a day share their weather and their traffic, so days are drawn, not rows (a cluster bootstrap; Efron &
    Tibshirani 1993).

    Raises:
        TooFewLabels: there are no rows, or they all fall on one day.
    """
    difference = row_losses(labels, champion) - row_losses(labels, challenger)
    names, day = np.unique(np.asarray(days), return_inverse=True)
    if names.size < 2:
        raise TooFewLabels(
            f"all {difference.size} labelled rows fall on one day, so there is no spread over days to judge by; "
            f"wait for the labels of another day"
        )
    sums = np.bincount(day, weights=difference)
    rows = np.bincount(day)
    drawn = np.random.default_rng(seed).integers(0, names.size, (resamples, names.size))
    gains = sums[drawn].sum(axis=1) / rows[drawn].sum(axis=1)
    low, high = np.quantile(gains, [0.025, 0.975])
    return PairedGain(
        mean=float(difference.mean()),
        low=float(low),
        high=float(high),
        probability=float(np.mean(gains > min_gain)),
        rows=int(difference.size),
        days=int(names.size),
    )


def _cumulated(truth: Floats, given: Floats) -> tuple[Floats, Floats]:
    """Ones and rows at or above each distinct probability, from the highest down."""
    order = np.argsort(-given, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(given[order])), given.size - 1)
    return np.cumsum(truth[order])[ends], ends + 1.0


def _checked(labels: ArrayLike, probabilities: ArrayLike, both_classes: str = "") -> tuple[Floats, Floats]:
    truth = np.asarray(labels, dtype=np.float64)
    given = np.asarray(probabilities, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != given.shape:
        raise ValueError(f"labels {truth.shape} and probabilities {given.shape} must be two arrays of one length")
    if truth.size == 0:
        raise TooFewLabels("there are no labelled rows to measure on; wait until labels arrive")
    if not np.isin(truth, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1; leave rows without a truth out")
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"{int((~((given >= 0) & (given <= 1))).sum())} of {given.size} numbers are no probabilities")
    if both_classes and truth.min() == truth.max():
        raise TooFewLabels(
            f"all {truth.size} labels are {int(truth[0])}; {both_classes} needs both classes: wait for more labels"
        )
    return truth, given
