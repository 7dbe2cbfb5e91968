"""Metrics against scikit-learn, and the bootstrap against what it must find."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform import metrics
from ml_platform.spec import TooFewLabels

Rows = tuple[np.ndarray, np.ndarray]


@st.composite
def scored(draw: st.DrawFn) -> Rows:
    """Labels of both classes and probabilities with many ties and the extremes."""
    size = draw(st.integers(2, 60))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(lambda x: 0 < sum(x) < len(x)))
    steps = draw(st.lists(st.integers(0, 8), min_size=size, max_size=size))
    return np.array(labels), np.array(steps) / 8


@settings(max_examples=60, deadline=None)
@given(scored())
def test_agrees_with_sklearn(rows: Rows) -> None:
    from sklearn import metrics as peer

    labels, given_ = rows
    assert metrics.auc(labels, given_) == pytest.approx(peer.roc_auc_score(labels, given_))
    assert metrics.pr_auc(labels, given_) == pytest.approx(peer.average_precision_score(labels, given_))
    assert metrics.brier(labels, given_) == pytest.approx(peer.brier_score_loss(labels, given_))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metrics.log_loss(labels, given_) == pytest.approx(peer.log_loss(labels, given_, labels=[0, 1]))


@settings(max_examples=30, deadline=None)
@given(scored(), st.integers(2, 10))
def test_calibration_curve_agrees_with_sklearn(rows: Rows, bins: int) -> None:
    from sklearn.calibration import calibration_curve

    predicted, observed, counts = metrics.calibration_curve(*rows, bins=bins)
    peer_observed, peer_predicted = calibration_curve(*rows, n_bins=bins, strategy="quantile")
    np.testing.assert_allclose(predicted, peer_predicted)
    np.testing.assert_allclose(observed, peer_observed)
    assert counts.sum() == rows[0].size


def test_curves_have_the_area_that_the_numbers_say() -> None:
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 2, 500)
    given_ = np.clip(labels * 0.2 + draw.random(500) * 0.8, 0, 1).round(2)
    false_rate, true_rate = metrics.roc(labels, given_)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(metrics.auc(labels, given_))


@pytest.mark.parametrize(
    "measure",
    [metrics.log_loss, metrics.auc, metrics.pr_auc, metrics.brier, metrics.calibration_gap, metrics.calibration_error],
)
def test_nothing_to_measure_is_an_error_and_never_a_number(measure: Callable[..., float]) -> None:
    with pytest.raises(TooFewLabels, match="no labelled rows"):
        measure([], [])
    with pytest.raises(ValueError, match="0 or 1"):
        measure([0, 2], [0.5, 0.5])
    for wrong in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="1 of 2 numbers are no probabilities"):
            measure([0, 1], [0.5, wrong])
    with pytest.raises(ValueError, match="one length"):
        measure([0, 1], [0.5])


@settings(max_examples=40, deadline=None)
@given(scored())
def test_lift_is_precision_over_the_share_of_ones(rows: Rows) -> None:
    labels, given_ = rows
    taken, found = metrics.lift(labels, given_)
    for share, value in zip(taken, found, strict=True):
        lowest = np.sort(given_)[::-1][round(share * given_.size) - 1]
        assert value == pytest.approx(labels[given_ >= lowest].mean() / labels.mean())
    assert (taken[-1], found[-1]) == (1, pytest.approx(1))


def test_calibration_error_sees_what_the_gap_of_the_means_hides() -> None:
    labels, flat = np.tile([0, 0, 0, 1, 1, 1, 1, 0], 100), np.tile([0.2, 0.8], 400).repeat(1)
    swapped = np.where(np.arange(800) % 8 < 4, 0.25, 0.75)
    assert metrics.calibration_gap(labels, flat) == pytest.approx(0)
    assert metrics.calibration_error(labels, flat) == pytest.approx(0.3)
    assert metrics.calibration_error(labels, swapped) == pytest.approx(0)


@pytest.mark.parametrize("measure", [metrics.auc, metrics.pr_auc])
def test_one_class_has_no_ranking(measure: Callable[..., float]) -> None:
    with pytest.raises(TooFewLabels, match="all 2 labels are 1"):
        measure([1, 1], [0.2, 0.4])


def days_of_rows(days: int = 8, rows: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, true probabilities, day of each row)."""
    draw = np.random.default_rng(5)
    truth = draw.beta(1, 3, days * rows)
    return (draw.random(truth.size) < truth).astype(int), truth, np.repeat(np.arange(days), rows)


def test_a_clear_gain_is_found_and_its_reverse_is_not() -> None:
    labels, truth, days = days_of_rows()
    constant = np.full(truth.size, labels.mean())
    gain = metrics.paired_gain(labels, constant, truth, days, seed=1)
    assert gain.mean == pytest.approx(metrics.log_loss(labels, constant) - metrics.log_loss(labels, truth))
    assert gain.probability > 0.99
    assert gain.low < gain.mean < gain.high
    assert (gain.rows, gain.days) == (1600, 8)
    assert metrics.paired_gain(labels, truth, constant, days, seed=1).probability < 0.01
    assert metrics.paired_gain(labels, constant, truth, days, seed=1, min_gain=gain.high + 0.1).probability == 0


def test_the_same_model_gains_nothing() -> None:
    labels, truth, days = days_of_rows()
    gain = metrics.paired_gain(labels, truth, truth, days, seed=1)
    assert (gain.mean, gain.probability) == (0, 0)


def test_bootstrap_is_over_days_and_repeats_with_its_seed() -> None:
    labels, truth, _ = days_of_rows()
    constant = np.full(truth.size, labels.mean())
    two = np.arange(truth.size) % 2
    first = metrics.paired_gain(labels, constant, truth, two, seed=3)
    assert first == metrics.paired_gain(labels, constant, truth, two, seed=3)
    by_row = metrics.paired_gain(labels, constant, truth, np.arange(truth.size), seed=3)
    assert by_row.high - by_row.low > first.high - first.low  # two near-equal halves hide the spread of rows
    with pytest.raises(TooFewLabels, match="on one day"):
        metrics.paired_gain(labels, constant, truth, np.zeros(truth.size), seed=3)
