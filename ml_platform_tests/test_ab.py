"""A/B tests: intervals that hold at every look for skewed metrics, the check of the split, restarts, no data."""

import json
import math
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.bench.rollout_ab import left_out
from ml_platform.serving.ab import ABTest, Compared, plot_columns
from ml_platform.serving.ab_interval import NO_SUMS, bets_on, log_gamma, owed, split_log_e
from ml_platform.serving.eprocess import levels_before, weighted_differences
from ml_platform_tests.test_eprocess import within

CLICKED = Compared(name="clicked")
SPENT = Compared(name="spent", low=0, high=200)


def records(seed: int, rows: int, *, lift: float = 0.0, share: float = 0.5) -> pl.DataFrame:
    chance = np.random.default_rng(seed)
    treated = chance.random(rows) < share
    return pl.DataFrame(
        {
            "unit": np.arange(rows),
            "variant": np.where(treated, "treatment", "control"),
            "probability": np.full(rows, share),
            "clicked": (chance.random(rows) < 0.2 + lift * treated).astype(int),
            "spent": np.minimum(np.exp(1.5 * chance.standard_normal(rows)) * (1 + lift * treated), 200),
        }
    )


# The interval


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.floats(0.1, 0.9), st.floats(-1, 1)
)
def test_a_log_sum_for_each_bet_is_the_products_written_out(units, w, mean):
    values, treated = np.array([value for value, _ in units]), np.array([mine for _, mine in units])
    found = weighted_differences(values, treated, w, levels_before(values))
    products = []
    for bet in np.geomspace(1e-3, 0.95, 32):
        more = less = 1.0
        for difference, low, high in zip(found.found, found.lowest, found.highest, strict=True):
            down, up = (2 ** (math.ceil(4 * math.log2(bound) - 1e-9) / 4) for bound in (-low, high))
            assert down >= -low * (1 - 1e-9)
            assert up >= high * (1 - 1e-9)
            more *= (1 + bet / down * difference) / (1 + bet / down * mean)
            less *= (1 - bet / up * difference) / (1 - bet / up * mean)
        products.append((more, less))
    sums = NO_SUMS.after(bets_on(found))
    assert np.exp(sums.log_evidence(mean)) == pytest.approx(np.mean(products, axis=0), rel=1e-5)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.02, 0.98), st.floats(0, 1))
def test_each_bet_is_fair_where_the_mean_is_the_true_difference(canary, champion, w, baseline):
    won = np.zeros((2, 32))
    for value, mine, chance in ((canary, True, w), (champion, False, 1 - w)):
        found = weighted_differences([value], [mine], w, baseline)
        bets, true = bets_on(found), np.array([canary - champion])
        more, less = bets.more - owed(bets.more_reach, true), bets.less - owed(bets.less_reach, -true)
        assert np.isfinite([more, less]).all()
        won += chance * np.exp(np.stack([more[0], less[0]]))
    assert won == pytest.approx(np.ones((2, 32)), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_ends_where_the_evidence_reaches_its_bar(seed):
    frame = records(seed, 4000, lift=0.05)
    sums = ABTest.nothing(CLICKED).after(frame).sums
    low, high = sums.interval(0.05)
    assert -1 < low < high < 1
    assert sums.log_evidence(low)[0] == pytest.approx(math.log(40), abs=1e-6)
    assert sums.log_evidence(high)[1] == pytest.approx(math.log(40), abs=1e-6)


def test_the_interval_of_nothing_is_everything():
    assert NO_SUMS.interval(0.05) == (-1, 1)


@pytest.mark.parametrize("lift", [0.0, 0.5])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_watched_intervals_seldom_miss_a_skewed_difference(lift, share):
    """300 runs looked at after each unit; one value in fifty is 1, all others 0."""
    chance, runs, units = np.random.default_rng(3), 300, 1500
    treated = chance.random((runs, units)) < share
    values = (chance.random((runs, units)) < 0.02 * (1 + lift * treated)).astype(float)
    found = weighted_differences(values, treated, np.array([share]), levels_before(values))
    assert within(int(left_out(found, 0.02 * lift, 0.05).sum()), runs, 0.05)


def test_the_interval_finds_a_difference_and_shrinks():
    report = ABTest.nothing(CLICKED).after(records(1, 40_000, lift=0.03)).report()
    assert report.differs
    assert 0 < report.now.low < 0.03 < report.now.high
    widths = [point.high - point.low for point in report.points if point.units >= 100]
    assert len(widths) > 20
    assert all(later < earlier + 0.01 for earlier, later in pairwise(widths))
    assert "treatment higher" in report.sentence
    assert "valid at any look" in report.sentence


# The split


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1, 0.9], [0.2, 0.3, 0.5]])
@pytest.mark.parametrize("seed", range(5))
def test_the_split_is_the_predicted_one_over_the_declared_one(shares, seed):
    chance = np.random.default_rng(seed)
    drawn = chance.choice(len(shares), 300, p=np.roll(shares, seed % 2))
    counts, log = np.zeros(len(shares)), 0.0
    for variant in drawn:
        predicted = (100 * np.array(shares) + counts) / (100 + counts.sum())
        log += math.log(predicted[variant] / shares[variant])
        counts[variant] += 1
    assert float(split_log_e(counts, shares)) == pytest.approx(log, abs=1e-9)


def test_log_gamma_is_the_standard_librarys():
    values = np.concatenate([np.geomspace(1e-6, 1e9, 500), np.arange(1.0, 50)])
    expected = np.array([math.lgamma(value) for value in values])
    assert (np.abs(log_gamma(values) - expected) <= 1e-12 * np.maximum(np.abs(expected), 1)).all()


def test_a_right_split_seldom_looks_wrong_and_a_wrong_one_is_found():
    chance, runs, units = np.random.default_rng(4), 400, 3000
    for share, wrong in ((0.5, False), (0.1, False), (0.46, True)):
        treated = np.cumsum(chance.random((runs, units)) < share, axis=1)
        counts = np.stack([np.arange(1, units + 1) - treated, treated], axis=-1)
        declared = 0.5 if wrong else share
        found = (split_log_e(counts, [1 - declared, declared]) >= math.log(20)).any(axis=1).sum()
        assert found > 0.8 * runs if wrong else within(int(found), runs, 0.05)


def test_a_lost_side_is_reported_and_no_difference_trusted():
    frame = records(1, 40_000, lift=0.1)
    lost = frame.filter((pl.col("variant") == "control") | (pl.col("unit") % 10 != 0))
    report = ABTest.nothing(CLICKED).after(lost).report()
    assert not report.split_holds
    assert not report.differs
    assert "do not arrive as they are assigned" in report.sentence
    assert ABTest.nothing(CLICKED).after(frame).report().split_holds


@pytest.mark.parametrize(("counts", "shares"), [([1, 1], [0.5, 0.6]), ([1, 1], [0, 1]), ([-1, 1], [0.5, 0.5])])
def test_a_split_that_cannot_be_is_refused(counts, shares):
    with pytest.raises(ValueError, match=r"shares|fewer than 0"):
        split_log_e(counts, shares)


# The state


@pytest.mark.parametrize("seed", range(10))
def test_a_test_is_the_same_to_the_bit_however_cut_up_and_restarted(seed):
    frame = pl.concat([records(seed, 700), records(seed + 1, 700, share=0.2)]).with_columns(
        pl.when(pl.col("unit") % 3 == 0).then(None).otherwise(pl.col("spent")).alias("spent")
    )
    parts = ABTest.nothing(SPENT)
    for start, stop in pairwise([0, *sorted(np.random.default_rng(seed).integers(0, 1401, 5).tolist()), 1400]):
        parts = ABTest.from_json(SPENT, json.loads(json.dumps(parts.after(frame[start:stop]).as_json())))
    whole = ABTest.nothing(SPENT).after(frame)
    assert parts.as_json() == whole.as_json()
    assert parts.report() == whole.report()


def test_a_unit_arrives_once_and_its_first_value_counts():
    first = {"unit": ["a", "b"], "variant": ["control", "treatment"], "probability": [0.5, 0.5]}
    state = ABTest.nothing(CLICKED).after(first)
    assert state.report().now.units == 0
    assert "no data on" in state.report().sentence
    state = state.after({**first, "clicked": [1, 0]})
    again = state.after({**first, "clicked": [0, 1]})
    assert again.as_json() == state.as_json()
    assert (state.control.total, state.treatment.total) == (1, 0)
    assert state.arrived == {0.5: (1, 1)}


def test_the_metrics_own_unit_is_reported():
    frame = records(3, 20_000, lift=1.0)
    report = ABTest.nothing(SPENT).after(frame).report()
    means = {name: frame.filter(pl.col("variant") == name)["spent"].mean() for name in ("treatment", "control")}
    assert report.now.difference == pytest.approx(means["treatment"] - means["control"], abs=0.2)
    assert report.now.low < means["treatment"] - means["control"] < report.now.high
    columns = plot_columns(report.points)
    assert columns["units"][-1] == 20_000
    assert (columns["low"] <= columns["high"]).all()


def test_workers_add():
    frame = records(5, 4000, lift=0.1)
    parts = [ABTest.nothing(CLICKED).after(frame.filter(pl.col("unit") % 2 == rest)) for rest in (0, 1)]
    merged, whole = parts[0].merged(parts[1]).report(), ABTest.nothing(CLICKED).after(frame).report()
    assert (merged.control, merged.treatment, merged.now.units) == (whole.control, whole.treatment, 4000)
    assert merged.now.low == pytest.approx(whole.now.low, abs=0.01)
    assert merged.split_log_e <= whole.split_log_e
    with pytest.raises(ValueError, match="counted by both"):
        parts[0].merged(parts[0])
    with pytest.raises(ValueError, match="different things"):
        parts[0].merged(ABTest.nothing(SPENT))


def test_no_data_never_differs():
    report = ABTest.nothing(CLICKED).report()
    assert not report.differs
    assert (report.now.low, report.now.high) == (-1, 1)
    assert "no data" in report.sentence


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"probability": [0.0]}, "no choice"),
        ({"probability": [1.0]}, "no choice"),
        ({"probability": [math.nan]}, "no choice"),
        ({"variant": ["canary"]}, "canary"),
        ({"clicked": [2]}, "declared range"),
        ({"clicked": [math.nan]}, "declared range"),
        ({"unit": [None]}, "no unit"),
    ],
)
def test_bad_records_are_refused(change, word):
    good = {"unit": ["a"], "variant": ["control"], "probability": [0.5], "clicked": [1.0]}
    with pytest.raises(ValueError, match=word):
        ABTest.nothing(CLICKED).after(pl.DataFrame({**good, **change}))


def test_a_test_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="range"):
        Compared(name="m", low=1, high=0)
    with pytest.raises(ValueError, match="alpha"):
        ABTest.nothing(CLICKED, alpha=1.0)
