"""Distances from profiles are those of brute force on the counts, and within their bounds of the exact ones."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance

from ml_platform.monitoring.distances import (
    distances,
    joined,
    joins,
    js_distance,
    ks,
    ks_between,
    positions,
    psi,
    shares_of,
    wasserstein,
)
from ml_platform.monitoring.layouts import learn
from ml_platform.monitoring.profile import ColumnProfile, Layout, profile

BINS = st.shared(st.integers(1, 12), key="bins")
HISTOGRAMS = arrays(np.int64, BINS, elements=st.integers(0, 50))
SAMPLES = st.lists(st.integers(-5, 5).map(float) | st.floats(-6, 6, width=32), min_size=1, max_size=50)


def profiled(reference: list[float], *samples: list[float | None]) -> list[ColumnProfile]:
    layouts = learn(pl.DataFrame({"x": reference}), days=1)
    return [profile(pl.DataFrame({"x": pl.Series(one, dtype=pl.Float64)}), layouts)[0] for one in samples]


@settings(max_examples=60, deadline=None)
@given(HISTOGRAMS, HISTOGRAMS)
def test_jensen_shannon_is_scipys(one: np.ndarray, other: np.ndarray) -> None:
    found = float(js_distance(one, other))
    assert 0 <= found <= 1
    if one.sum() and other.sum():
        assert found == pytest.approx(jensenshannon(one, other, base=2), abs=1e-7)
        assert found == float(js_distance(other, one))
    many = js_distance(np.stack([one, other]), np.stack([other, other]))
    assert many[0] == found


def test_the_ends_of_jensen_shannon() -> None:
    assert js_distance(np.array([3, 1]), np.array([6, 2])) == 0
    assert js_distance(np.array([3, 0]), np.array([0, 2])) == 1
    assert js_distance(np.array([0, 0]), np.array([0, 2])) == 1


@settings(max_examples=60, deadline=None)
@given(HISTOGRAMS, HISTOGRAMS)
def test_psi_is_its_sum_written_out(one: np.ndarray, other: np.ndarray) -> None:
    if not one.sum() or not other.sum():
        return
    expected = 0.0
    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        p, q = max(a / one.sum(), 1e-4), max(b / other.sum(), 1e-4)
        expected += (p - q) * np.log(p / q)
    assert psi(one.astype(float), other.astype(float)) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(HISTOGRAMS, HISTOGRAMS)
def test_kolmogorov_smirnov_and_wasserstein_are_scipys_on_the_binned_values(one: np.ndarray, other: np.ndarray) -> None:
    if not one.sum() or not other.sum():
        return
    places = np.cumsum(np.arange(1.0, one.size + 1))
    left, right = np.repeat(places, one), np.repeat(places, other)
    assert ks(one, other) == pytest.approx(ks_2samp(left, right, method="asymp").statistic, abs=1e-12)
    assert wasserstein(one, other, places) == pytest.approx(wasserstein_distance(left, right), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(SAMPLES, SAMPLES, SAMPLES)
def test_the_exact_kolmogorov_smirnov_lies_between_its_bounds(reference: list, one: list, other: list) -> None:
    left, right = profiled(reference, one, other)
    least, most = ks_between(left.counts, right.counts, left.layout)
    exact = ks_2samp(one, other, method="asymp").statistic
    assert least - 1e-12 <= exact <= most + 1e-12


def test_with_the_reference_as_one_sample_the_bounds_are_a_bin_apart() -> None:
    """Of 64 bins each holds a 64th; of smooth data the distance at the edges is nearer than that by far."""
    chance = np.random.default_rng(5)
    for shift in (0.0, 0.1, 1.0):
        one, other = chance.normal(shift, 1, 50_000), chance.normal(0, 1, 50_000)
        left, right = profiled(list(other), list(one), list(other))
        least, most = ks_between(left.counts, right.counts, left.layout)
        exact = ks_2samp(one, other, method="asymp").statistic
        assert least <= exact <= most <= least + 2 / 64
        assert exact - least < 0.004


@settings(max_examples=50, deadline=None)
@given(SAMPLES, SAMPLES)
def test_wasserstein_is_off_by_at_most_a_bin(one: list, other: list) -> None:
    """Every value stands in its bin's middle, so none is moved further than half of the widest one."""
    left, right = profiled(one + other, one, other)
    edges = left.layout.edges
    found = wasserstein(left.counts, right.counts, positions(left.layout))
    assert abs(found - wasserstein_distance(one, other)) <= np.diff(edges, append=edges[-1]).max() + 1e-9


def test_distances_of_equal_profiles_are_zero_and_of_disjoint_ones_largest() -> None:
    values = list(np.random.default_rng(6).normal(size=1000))
    one, same, far = profiled(values, values, values, [value + 1000 for value in values])
    found = distances(same, one)
    assert (found.ks, found.psi, found.js, found.js_missing, found.wasserstein) == (0, 0, 0, 0, 0)
    apart = distances(far, one)
    assert (apart.ks, apart.js) == (1.0, 1.0)
    assert apart.psi is not None
    assert apart.psi > 5


def test_missing_and_infinite_values_are_seen_by_shares_and_not_by_the_order_of_values() -> None:
    values = list(np.random.default_rng(7).normal(size=1000))
    one, half, endless = profiled(values, values, [None, *values[::2]] * 1 + [None] * 499, [float("inf")] * 1000)
    found = distances(half, one)
    assert found.ks is not None
    assert found.ks < 0.06
    assert found.js_missing == pytest.approx(jensenshannon([0.5, 0.5], [1, 0], base=2), abs=1e-3)
    assert found.js is not None
    assert found.js > found.js_missing - 1e-9
    gone = distances(endless, one)
    assert (gone.js, gone.ks, gone.wasserstein) == (1.0, None, None)


def test_text_has_shares_and_no_order() -> None:
    frame = pl.DataFrame({"x": ["a"] * 60 + ["b"] * 40})
    layouts = learn(frame, days=1)
    (one,), (other,) = profile(frame, layouts), profile(pl.DataFrame({"x": ["a"] * 60 + ["renamed"] * 40}), layouts)
    found = distances(other, one)
    assert (found.ks, found.ks_most, found.wasserstein) == (None, None, None)
    assert found.js == pytest.approx(jensenshannon([0.6, 0.4, 0], [0.6, 0, 0.4], base=2), abs=1e-9)


@pytest.mark.parametrize("values", [[], [None] * 9, [7.0], [7.0] * 9])
@pytest.mark.parametrize("reference", [[], [None] * 9, [7.0], [7.0] * 9, [1.0, 2.0, 3.0]])
def test_columns_with_little_in_them_are_compared_without_an_error(values: list, reference: list) -> None:
    one, other = profiled(reference or [None], values, reference)
    found = distances(one, other)
    for value in vars(found).values():
        assert value is None or np.isfinite(value)
    if not values or not reference:
        assert found.js is None


def test_a_column_of_lists_is_compared_by_its_missing_values_alone() -> None:
    frame = pl.DataFrame({"x": [[1.0], None]})
    (one,) = profile(frame, learn(frame, days=1))
    assert distances(one, one).js_missing == 0


# Joining bins


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, st.integers(2, 70), elements=st.integers(0, 200)))
def test_joined_bins_hold_a_tenth_and_lose_nothing(counts: np.ndarray) -> None:
    layout = Layout(column="x", kind="number", edges=np.arange(len(counts) - 1.0))
    groups = joins(counts, layout)
    assert groups[0] == 0
    assert set(np.diff(groups).tolist()) <= {0, 1}
    assert groups.tolist().count(groups[0]) == 1  # the outer ones stay alone
    assert groups.tolist().count(groups[-1]) == 1
    histogram = np.concatenate([counts, [1, 2, 3]])[None].astype(float)
    found = joined(histogram, groups)[0]
    assert found[-3:].tolist() == [1, 2, 3]
    assert found[:-3].tolist() == [counts[groups == group].sum() for group in range(groups[-1] + 1)]
    assert groups[-1] + 1 <= 2 * 10 + 3


def test_joins_are_those_of_a_reference_and_shares_add_up_to_one() -> None:
    values = list(np.random.default_rng(8).normal(size=6400))
    (found,) = profiled(values, values)
    groups = joins(found.counts, found.layout)
    shares = joined(shares_of(found)[None], groups)[0]
    assert shares.sum() == pytest.approx(1.0)
    assert 11 <= len(shares) - 3 <= 13
    assert np.all(shares[1:-5] >= 0.1 - 1e-12)
