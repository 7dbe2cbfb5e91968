"""The bench of rollouts counts with the service's functions, and its intervals and peers are what they say."""

import math

import numpy as np
import pytest
from click.testing import CliRunner

from ml_platform.bench.rollout import SCENARIOS
from ml_platform.bench.rollout_ab import left_out
from ml_platform.bench.rollout_figures import binomial_interval, median_of, median_places, share_of
from ml_platform.bench.rollout_peers import LOOK, PEERS
from ml_platform.bench.rollout_runs import CELL, NEVER, Traffic, crossings, requests_until, simulated
from ml_platform.cli import main
from ml_platform.serving.ab_interval import NO_SUMS, bets_on
from ml_platform.serving.eprocess import (
    ODDS,
    Differences,
    EProcess,
    below,
    levels_before,
    log_bar,
    odds_sums,
    weighted_differences,
)


def some(traffic: Traffic, runs: int = 40, seed: int = 1):
    return next(simulated(traffic, runs, np.random.default_rng(seed)))


@pytest.mark.parametrize("against", [None, 1.5])
@pytest.mark.parametrize("name", ["no difference", "ramp, errors rise", "x2"])
def test_a_run_crosses_where_the_services_state_does(name, against):
    runs = some(SCENARIOS[name], 12)
    found = crossings(runs, alpha=0.05, against=against)
    odds = ODDS if against is None else below(against)
    for run, cell in enumerate(found):
        events = int(runs.there[run].sum())
        mine, share = runs.mine[run, :events], runs.traffic.share[runs.cell[run, :events]]
        sums = odds_sums(mine, np.ones(events), share, odds=odds, against=against or 1.0)
        whole = EProcess.over(40).after(sums)
        assert whole.reached(0.05) == (cell != NEVER)
        if cell != NEVER:
            upto = int((runs.cell[run, :events] < cell).sum())
            assert not EProcess.over(40).after(sums[:upto]).reached(0.05)
            upto = int((runs.cell[run, :events] <= cell).sum())
            assert EProcess.over(40).after(sums[:upto]).reached(0.05)
    assert (found == NEVER).any() or (found != NEVER).all()


def test_simulated_traffic_has_the_rates_that_were_asked_for():
    runs = some(Traffic.steady(requests=50_000, times=3), 40)
    asked, bad = runs.canary_requests[:, -1].sum(), runs.canary_bad[:, -1].sum()
    assert asked / (40 * 50_000) == pytest.approx(0.1, rel=0.02)
    assert bad / asked == pytest.approx(0.03, rel=0.05)
    theirs = (runs.all_bad[:, -1].sum() - bad) / (40 * 50_000 - asked)
    assert theirs == pytest.approx(0.01, rel=0.05)
    assert (runs.mine.sum(axis=1) == runs.canary_bad[:, -1]).all()
    assert (runs.there.sum(axis=1) == runs.all_bad[:, -1]).all()


def test_requests_are_those_at_the_end_of_the_cell():
    runs = some(Traffic.steady(requests=2000), 3)
    found = requests_until(runs, np.array([0, 19, NEVER]))
    assert found.tolist() == [runs.canary_requests[0, 0], runs.canary_requests[1, 19], math.inf]
    assert runs.canary_requests[1, 19] < 20 * CELL


def test_the_z_test_is_the_textbooks():
    runs = some(SCENARIOS["x2"], 10)
    found = PEERS["z-test at every look"](runs)
    for run in range(10):
        for cell in range(LOOK - 1, runs.all_bad.shape[1], LOOK):
            n, k = runs.canary_requests[run, cell], runs.canary_bad[run, cell]
            m, j = (cell + 1) * CELL - n, runs.all_bad[run, cell] - k
            rate = (k + j) / (n + m)
            if k + j and (k / n - j / m) / math.sqrt(rate * (1 - rate) * (1 / n + 1 / m)) >= 1.6449:
                assert found[run] == cell
                break
        else:
            assert found[run] == NEVER


def test_pooled_tests_roll_back_equal_canaries_in_a_ramp_and_ours_does_not():
    runs = some(SCENARIOS["ramp, errors rise"], 40)
    for peer in ("z-test at every look", "O'Brien-Fleming", "pooled mSPRT"):
        assert (PEERS[peer](runs) != NEVER).mean() > 0.9
    assert (crossings(runs, alpha=0.05) != NEVER).mean() < 0.2


def test_retries_that_count_break_the_promise():
    runs = some(SCENARIOS["no difference"], 60)
    sizes = np.minimum(np.random.default_rng(1).geometric(0.3, runs.there.shape), 5)
    assert (crossings(runs, alpha=0.05, sizes=runs.there * sizes) != NEVER).mean() > 0.2


def test_the_quick_look_at_an_interval_is_the_interval():
    chance, true = np.random.default_rng(2), 0.08
    treated = chance.random((20, 600)) < 0.5
    values = (chance.random((20, 600)) < 0.3).astype(float)
    found = weighted_differences(values, treated, np.array([0.5]), levels_before(values))
    missed = np.zeros(20, dtype=bool)
    for run in range(20):
        sums = NO_SUMS
        for difference, low, high in zip(found.found[run], found.lowest[run], found.highest[run], strict=True):
            one = Differences(found=np.array([difference]), lowest=np.array([low]), highest=np.array([high]))
            sums = sums.after(bets_on(one))
            missed[run] |= max(sums.log_evidence(true)) >= math.log(10)
        low, high = sums.interval(0.2)
        assert missed[run] or low <= true <= high
    assert missed.any()
    assert not missed.all()
    assert (left_out(found, true, 0.2) == missed).all()


# The intervals of the figures


@pytest.mark.parametrize(("hits", "runs"), [(0, 10), (1, 10), (5, 10), (10, 10), (37, 2000), (1990, 2000)])
def test_the_binomial_interval_has_five_percent_beyond_each_end(hits, runs):
    low, high = binomial_interval(hits, runs)
    chances = [math.comb(runs, k) for k in range(runs + 1)]

    def between(first: int, last: int, share: float) -> float:
        return sum(
            math.exp(math.log(chances[k]) + k * math.log(share) + (runs - k) * math.log1p(-share))
            for k in range(first, last + 1)
        )

    assert low <= hits / runs <= high
    assert low == 0 if hits == 0 else between(hits, runs, low) == pytest.approx(0.05, rel=1e-6)
    assert high == 1 if hits == runs else between(0, hits, high) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("runs", [20, 100, 2000])
def test_the_places_around_a_median_cover_it(runs):
    low, high = median_places(runs)
    chances = np.array([math.comb(runs, k) / 2**runs for k in range(runs + 1)])
    assert chances[low + 1 : high + 1].sum() >= 0.9
    assert chances[low + 2 : high].sum() < 0.9


def test_a_figure_says_short_where_it_is():
    assert share_of("a", np.array([1, 0, 0, 0]), bar=0.05).short
    assert share_of("a", np.array([1, 1, 1, 0]), bar=0.9, at_least=True).short
    assert not share_of("a", np.zeros(10), bar=0.05).short
    assert not share_of("a", np.ones(10)).short
    late = median_of("a", np.array([10.0, np.inf, np.inf]), bar=100)
    assert late.short
    assert "never" in late.line()
    assert "SHORT" in late.line()
    assert not median_of("a", np.array([10.0, 20.0, np.inf]), bar=100).short


def test_the_command_prints_the_table_and_each_figure():
    done = CliRunner().invoke(main, ["bench", "rollout", "--quick"], catch_exceptions=False)
    assert done.exit_code == 0
    for word in ("e-process, at every error", *PEERS, "promoted at a margin of 1.5, equal", "interval ever misses"):
        assert word in done.output
    assert done.output.count("at most") >= 20
    assert log_bar(0.05) == pytest.approx(math.log(20))
