"""E-processes: equal to the formula written out slowly, additive, exact after a restart, and true to their promise."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.serving.eprocess import (
    BELOW,
    BETS,
    ODDS,
    EProcess,
    below,
    combined,
    levels_before,
    log_bar,
    log_mean,
    mean_sums,
    odds_sums,
    paired_differences,
    scaled,
    weighted_differences,
)

EVENTS = st.lists(st.tuples(st.booleans(), st.floats(0.01, 0.99)), min_size=1, max_size=30)
SHARES = st.floats(0, 1)


def slow_e(events: list[tuple[bool, float]], odds: list[float], against: float = 1.0) -> float:
    """The mean over odds of products, as the method is written down."""
    products = []
    for rho in odds:
        product = 1.0
        for mine, w in events:
            theta, null = w * rho / (w * rho + 1 - w), w * against / (w * against + 1 - w)
            product *= theta / null if mine else (1 - theta) / (1 - null)
        products.append(product)
    return sum(products) / len(products)


def columns(events):
    return np.array([mine for mine, _ in events], float), np.array([w for _, w in events])


def within(hits: int, runs: int, share: float) -> bool:
    """Whether so many hits or more have a probability above 1 in 10,000 if each run hits with ``share``."""
    logs = [
        math.lgamma(runs + 1) - math.lgamma(k + 1) - math.lgamma(runs - k + 1)
        + k * math.log(share) + (runs - k) * math.log1p(-share)
        for k in range(hits, runs + 1)
    ]  # fmt: skip
    return sum(map(math.exp, logs)) > 1e-4


# Bets on odds


@given(EVENTS)
def test_evidence_against_no_worse_is_the_formula(events):
    mine, w = columns(events)
    process = EProcess.over(len(ODDS)).after(odds_sums(mine, np.ones(len(mine)), w))
    assert process.e == pytest.approx(slow_e(events, list(ODDS)), rel=1e-9)


@given(EVENTS, st.floats(1.05, 5))
def test_evidence_against_the_margin_is_the_formula(events, margin):
    mine, w = columns(events)
    sums = odds_sums(mine, np.ones(len(mine)), w, odds=below(margin), against=margin)
    expected = slow_e(events, [margin / each for each in BELOW], margin)
    assert EProcess.over(len(BELOW)).after(sums).e == pytest.approx(expected, rel=1e-9)


@given(EVENTS)
def test_counts_of_events_are_worth_their_events(events):
    mine, _ = columns(events)
    one_by_one = odds_sums(mine, np.ones(len(mine)), 0.1).sum(axis=0)
    assert odds_sums(mine.sum(), len(mine), 0.1) == pytest.approx(one_by_one, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("w", [1e-6, 0.01, 0.1, 0.5, 0.99, 1 - 1e-6])
@pytest.mark.parametrize(("odds", "against"), [(ODDS, 1.0), (below(1.5), 1.5)])
def test_each_bet_is_fair_at_its_bound(w, odds, against):
    theta = w * against / (w * against + 1 - w)
    mine, theirs = (
        np.exp(odds_sums(1, 1, w, odds=odds, against=against)),
        np.exp(odds_sums(0, 1, w, odds=odds, against=against)),
    )
    assert theta * mine + (1 - theta) * theirs == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("times", [1.5, 1.7, 3.0, 20.0])
def test_promotion_loses_on_a_canary_beyond_its_margin(times):
    w, odds = 0.1, below(1.5)
    theta = w * times / (w * times + 1 - w)
    won = theta * np.exp(odds_sums(1, 1, w, odds=odds, against=1.5))
    won += (1 - theta) * np.exp(odds_sums(0, 1, w, odds=odds, against=1.5))
    assert (won <= 1 + 1e-12).all()


def test_nothing_is_learned_where_nobody_had_a_choice():
    assert not odds_sums([0, 0], [1, 1], 0.0).any()
    assert not odds_sums([1, 1e9], [1, 1e9], 1.0).any()
    assert not odds_sums([1.0, 0.0], [1.0, 1.0], [1.0, 0.0]).any()


def test_huge_counts_neither_overflow_nor_lose_their_meaning():
    worse = EProcess.over(len(ODDS)).after(odds_sums(np.array([3e8]), np.array([1e9]), 0.1))
    assert worse.log_e > 1e6
    assert math.isfinite(worse.e)
    same = EProcess.over(len(ODDS)).after(odds_sums(np.array([1e8]), np.array([1e9]), 0.1))
    assert -1e9 < same.log_e < 0
    assert not same.reached(0.05)


@pytest.mark.parametrize(
    ("mine", "both", "w", "word"),
    [
        (1, 1, -0.1, "outside"),
        (1, 1, 1.1, "outside"),
        (1, 1, math.nan, "outside"),
        (2, 1, 0.5, "at most all"),
        (-1, 1, 0.5, "at least 0"),
        (math.nan, 1, 0.5, "at least 0"),
        (1, math.inf, 0.5, "at most all"),
        (1, 1, 0.0, "nobody could be assigned"),
        (0, 1, 1.0, "nobody could be assigned"),
    ],
)
def test_events_that_cannot_be_are_refused(mine, both, w, word):
    with pytest.raises(ValueError, match=word):
        odds_sums(mine, both, w)


@pytest.mark.parametrize("margin", [1.0, 0.5, math.nan, math.inf])
def test_a_margin_lies_above_one(margin):
    with pytest.raises(ValueError, match="margin"):
        below(margin)


# Bets on means


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=30), st.floats(0, 0.5))
def test_paired_evidence_is_the_formula(pairs, tolerance):
    canary, champion = np.array(pairs).T
    products = []
    for bet in BETS:
        product = 1.0
        for mine, theirs in pairs:
            product *= 1 + bet / (1 + tolerance) * (mine - theirs - tolerance)
        products.append(product)
    process = EProcess.over(len(BETS)).after(paired_differences(canary, champion).against_at_most(tolerance))
    assert process.e == pytest.approx(np.mean(products), rel=1e-6, abs=1e-9)


@given(SHARES, SHARES, st.floats(0.01, 0.99), SHARES)
def test_weighted_differences_are_unbiased_and_within_their_bounds(canary, champion, w, baseline):
    both = weighted_differences([canary, champion], [True, False], w, baseline)
    assert w * both.found[0] + (1 - w) * both.found[1] == pytest.approx(canary - champion, abs=1e-9)
    assert (both.found >= both.lowest - 1e-9).all()
    assert (both.found <= both.highest + 1e-9).all()
    for value, mine in ((0, True), (1, True), (0, False), (1, False)):
        one = weighted_differences([float(value)], [mine], w, baseline)
        assert one.lowest[0] - 1e-9 <= one.found[0] <= one.highest[0] + 1e-9


@given(
    st.lists(SHARES, min_size=1, max_size=3), st.lists(SHARES, min_size=1, max_size=3), st.floats(0.05, 0.95), SHARES
)
def test_a_bet_on_a_mean_is_fair_at_its_bound(canary, champion, w, baseline):
    """What a unit multiplies E with, in the mean over values and sides, is one where the means differ by just that."""
    gap = np.mean(canary) - np.mean(champion)
    for sign in (1, -1):
        won = np.zeros(len(BETS))
        for values, mine, chance in ((canary, True, w), (champion, False, 1 - w)):
            found = weighted_differences(values, [mine] * len(values), w, baseline)
            bounds = found.lowest if sign == 1 else -found.highest
            if not (sign * gap > bounds).all():
                return  # no value can lie below: nothing to bet on, and refused
            won += chance * np.exp(mean_sums(sign * found.found, bounds, above=sign * gap)).mean(axis=0)
        assert won == pytest.approx(np.ones(len(BETS)), rel=1e-6)


@given(st.lists(SHARES, max_size=20), st.integers(0, 20))
def test_a_level_is_of_what_came_before(values, cut):
    slow = [(0.5 + sum(values[:place])) / (place + 1) for place in range(len(values))]
    assert levels_before(np.array(values)) == pytest.approx(slow)
    head, tail = np.array(values[:cut]), np.array(values[cut:])
    assert levels_before(tail, head.sum(), len(head)) == pytest.approx(slow[cut:])


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_losses_outside_their_range_are_refused(value):
    with pytest.raises(ValueError, match="outside"):
        paired_differences([value], [0.5])
    with pytest.raises(ValueError, match="outside"):
        weighted_differences([value], [True], 0.5, 0.5)
    with pytest.raises(ValueError, match="declared range"):
        scaled([value], low=0, high=1)


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_one_side_alone_has_no_difference(w):
    with pytest.raises(ValueError, match="nothing to compare"):
        weighted_differences([0.5], [w == 1], w, 0.5)


def test_a_mean_that_nothing_can_miss_is_refused():
    with pytest.raises(ValueError, match="cannot be doubted"):
        mean_sums([0.5], [0.0], above=0.0)
    with pytest.raises(ValueError, match="below the lowest"):
        mean_sums([math.nan], [-1.0])
    with pytest.raises(ValueError, match="below the lowest"):
        mean_sums([-1.1], [-1.0])


def test_business_figures_become_losses():
    assert scaled([0, 25, 100], low=0, high=100, higher_is_better=True).tolist() == [1.0, 0.75, 0.0]
    assert scaled([-1, 1], low=-1, high=1).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="range"):
        scaled([], low=1, high=1)


# The state


@given(EVENTS, st.integers(0, 30))
def test_a_state_is_the_same_to_the_bit_however_events_are_cut_up_or_restarted(events, cut):
    mine, w = columns(events)
    sums = odds_sums(mine, np.ones(len(mine)), w)
    whole = EProcess.over(len(ODDS)).after(sums)
    half = EProcess.from_json(json.loads(json.dumps(EProcess.over(len(ODDS)).after(sums[:cut]).as_json())))
    assert half.after(sums[cut:]) == whole
    prefixes = [EProcess.over(len(ODDS)).after(sums[:stop]).log_e for stop in range(len(events) + 1)]
    assert whole.peak == pytest.approx(max(prefixes), abs=1e-9)


def test_a_state_is_the_same_to_the_bit_over_blocks():
    chance = np.random.default_rng(1)
    sums = odds_sums(chance.random(9000) < 0.1, np.ones(9000), 0.1)
    whole, parts = EProcess.over(len(ODDS)).after(sums), EProcess.over(len(ODDS))
    for part in np.array_split(sums, [1, 4096, 5000]):
        parts = parts.after(part)
    assert parts == whole


@given(EVENTS, EVENTS)
def test_workers_add(first, second):
    sums = [odds_sums(*(columns(events)[0], np.ones(len(events)), columns(events)[1])) for events in (first, second)]
    one, other = (EProcess.over(len(ODDS)).after(each) for each in sums)
    whole = EProcess.over(len(ODDS)).after(np.concatenate(sums))
    assert one.merged(other).log_e == pytest.approx(whole.log_e, abs=1e-9)
    assert one.merged(other).events == whole.events
    assert one.merged(other) == other.merged(one)


def test_a_state_refuses_another_grid_and_what_is_no_number():
    state = EProcess.over(3)
    with pytest.raises(ValueError, match="grid"):
        state.merged(EProcess.over(4))
    with pytest.raises(ValueError, match="numbers of shape"):
        state.after(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="numbers of shape"):
        state.after(np.full((1, 3), math.nan))


def test_nothing_seen_is_no_evidence():
    assert EProcess.over(40).e == 1
    assert not EProcess.over(40).reached(0.99)
    for alpha in (0, 1, -1, math.nan):
        with pytest.raises(ValueError, match="alpha"):
            log_bar(alpha)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=6))
def test_metrics_are_averaged(logs):
    assert math.exp(combined(logs)) == pytest.approx(np.mean(np.exp(logs)), rel=1e-9)


def test_no_metric_has_no_average():
    for logs in ([], [0.0, math.nan]):
        with pytest.raises(ValueError, match="e-values"):
            combined(logs)


# The promise (fixed seeds; each bound leaves one chance in ten thousand)


def test_an_equal_canary_is_seldom_rolled_back_while_shares_move():
    chance, runs, events = np.random.default_rng(20260101), 1000, 1500
    w = np.repeat([0.01, 0.05, 0.25, 0.5], events // 4)
    mine = chance.random((runs, events)) < w
    reached = 0
    for block in np.array_split(mine, 20):
        sums = odds_sums(block, np.ones(events), w)
        reached += int((log_mean(np.cumsum(sums, axis=1)) >= log_bar(0.05)).any(axis=1).sum())
    assert reached
    assert within(reached, runs, 0.05)


@pytest.mark.parametrize("paired", [True, False])
def test_an_equal_loss_is_seldom_rolled_back_though_skewed(paired):
    chance, runs, units, w = np.random.default_rng(7), 500, 1000, 0.1
    # Mostly nothing, seldom everything: the worst there is for a normal approximation.
    canary, champion = (chance.random((runs, units)) < 0.02).astype(float), np.full((runs, units), 0.02)
    reached = 0
    for part in np.array_split(np.arange(runs), 10):
        if paired:
            found = paired_differences(canary[part], champion[part])
        else:
            mine = chance.random((len(part), units)) < w
            values = np.where(mine, canary[part], champion[part])
            found = weighted_differences(values, mine, np.array([w]), levels_before(values))
        run = np.cumsum(found.against_at_most(0.0), axis=1)
        reached += int((log_mean(run) >= log_bar(0.05)).any(axis=1).sum())
    assert within(reached, runs, 0.05)
