"""The bootstrap over days against the slow way: put the drawn days' rows together and measure them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform import metrics
from ml_platform.evaluation.intervals import by_day, draw, of_both_classes, paired_gains, resample
from ml_platform.spec import TooFewLabels

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def days_of_rows(draw_: st.DrawFn) -> Rows:
    """Labels of both classes, probabilities with many ties, days of very different sizes."""
    size = draw_(st.integers(4, 60))
    labels = draw_(st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(lambda x: 0 < sum(x) < len(x)))
    steps = draw_(st.lists(st.integers(0, 8), min_size=size, max_size=size))
    days = draw_(st.lists(st.integers(0, 4), min_size=size, max_size=size).filter(lambda x: len(set(x)) > 1))
    return np.array(labels, dtype=float), np.array(steps) / 8, np.array(days)


@settings(max_examples=80, deadline=None)
@given(days_of_rows(), st.integers(0, 99))
def test_a_resample_is_the_measure_of_the_drawn_days_rows(rows: Rows, seed: int) -> None:
    truth, probabilities, days = rows
    draws = draw(days, seed=seed, resamples=5)
    draws = replace(draws, counts=draws.counts[of_both_classes(truth, draws)])
    found = {name: measure(draws.counts) for name, measure in by_day(truth, probabilities, draws).items()}
    assert set(found) == set(metrics.measures(truth, probabilities))
    for number, counts in enumerate(draws.counts):
        assert counts.sum() == draws.days == len(set(days))
        taken = np.repeat(np.arange(truth.size), counts[draws.day].astype(int))
        slow = metrics.measures(truth[taken], probabilities[taken])
        slow["calibration_error"] = error_in_bins(truth, probabilities, taken)
        assert {name: values[number] for name, values in found.items()} == pytest.approx(slow)


def error_in_bins(truth: np.ndarray, probabilities: np.ndarray, taken: np.ndarray) -> float:
    """By definition, over the bins of all rows."""
    bins = metrics.equal_bins(probabilities, 10)[taken]
    gaps = [abs((probabilities[taken] - truth[taken])[bins == each].sum()) for each in range(10)]
    return float(sum(gaps) / taken.size)


@settings(max_examples=40, deadline=None)
@given(days_of_rows())
def test_once_every_day_is_the_measure_of_all_rows(rows: Rows) -> None:
    truth, probabilities, days = rows
    draws = draw(days, seed=1, resamples=1)
    whole = np.ones((1, draws.days))
    found = {name: measure(whole)[0] for name, measure in by_day(truth, probabilities, draws).items()}
    assert found == pytest.approx(metrics.measures(truth, probabilities))


@settings(max_examples=40, deadline=None)
@given(days_of_rows(), st.integers(0, 99))
def test_gains_of_groups_are_means_of_the_drawn_rows(rows: Rows, seed: int) -> None:
    differences, _, days = rows
    draws = draw(days, seed=seed, resamples=4)
    members = np.stack([np.arange(days.size) % 2 == 0, days == days[0], np.ones(days.size, dtype=bool)], axis=1)
    means, resampled = paired_gains(differences, members, draws)
    for group in range(3):
        assert means[group] == pytest.approx(differences[members[:, group]].mean())
        for number, counts in enumerate(draws.counts):
            taken = np.repeat(np.arange(days.size), counts[draws.day].astype(int))
            mine = differences[taken][members[taken, group]]
            assert resampled[number, group] == pytest.approx(mine.mean() if mine.size else np.nan, nan_ok=True)


def world(seed: int, days: int = 30, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """(labels, day): days differ in their share of ones."""
    draw_ = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), rows)
    return (draw_.random(day.size) < 1 / (1 + np.exp(1 - draw_.normal(0, 0.8, days)[day]))).astype(float), day


def test_intervals_over_days_cover_the_truth_where_those_over_rows_do_not() -> None:
    share = world(1, days=200_000, rows=1)[0].mean()
    truth, covered = 0.09 * (1 - share) + 0.49 * share, {"days": 0, "rows": 0}
    for seed in range(60):
        labels, day = world(seed)
        for way, units in (("days", day), ("rows", np.arange(day.size))):
            errors, everything = (labels - 0.3) ** 2, np.ones((day.size, 1), dtype=bool)
            _, resampled = paired_gains(errors, everything, draw(units, seed=1, resamples=200))
            low, high = np.quantile(resampled, [0.025, 0.975])
            covered[way] += low <= truth <= high
    assert covered["days"] >= 52
    assert covered["rows"] <= 45


def test_a_model_less_itself_is_nothing_and_less_another_is_paired() -> None:
    labels, day = world(3)
    one, other = (np.full(day.size, chance) for chance in (0.25, 0.3))
    first, second = (resample(labels, each, day, seed=1, resamples=300) for each in (one, other))
    assert {(found.value, found.low, found.high) for found in first.less(first).values()} == {(0, 0, 0)}
    gained, alone = first.less(second)["log_loss"], first.intervals()["log_loss"]
    assert gained.value == pytest.approx(metrics.log_loss(labels, one) - metrics.log_loss(labels, other))
    assert gained.low < gained.value < gained.high
    assert gained.high - gained.low < alone.high - alone.low  # what days share cancels


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(TooFewLabels, match="on one day"):
        resample([0, 1], [0.2, 0.4], [1, 1], seed=1)
    with pytest.raises(TooFewLabels, match="needs both classes"):
        resample([1, 1], [0.2, 0.4], [1, 2], seed=1)
    with pytest.raises(ValueError, match="1 of 2 numbers are no probabilities"):
        resample([0, 1], [0.2, np.nan], [1, 2], seed=1)
