"""The adaptive threshold: its budget holds for any scores, its state is a function of the days."""

import math
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from ml_platform.monitoring.conformal import Watch, advance, followed, threshold
from ml_platform.spec.alarms import AlarmBudget

MONDAY = date(2024, 1, 1)
DAILY = AlarmBudget(period_days=1, min_periods=1)
SCORES = st.lists(st.floats(0.01, 10), min_size=2, max_size=120)


def in_turn(scores, first=MONDAY):
    return [(first + timedelta(days=n), score) for n, score in enumerate(scores)]


def states(found):
    return [verdict.state for _, verdict in found]


@settings(max_examples=300, deadline=None)
@given(SCORES, st.sampled_from([0.02, 0.1, 0.4]), st.sampled_from([0.05, 0.25, 0.6]), st.integers(1, 30))
def test_the_budget_holds_for_any_scores(scores, step, share, memory):
    """Gibbs & Candès 2021, Proposition 4.1."""
    budget = AlarmBudget(period_days=1, min_periods=1, step=step, share=share, memory=memory)
    judged = [state for state in states(followed(in_turn(scores), budget)) if state != "unknown"]
    spent = judged.count("warn") / len(judged)
    assert abs(spent - share) <= (max(share, 1 - share) + step) / (step * len(judged)) + 1e-9


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0]), min_size=2, max_size=120))
def test_it_never_warns_where_nothing_moves_nor_saves_up_for_later(scores):
    found = followed(in_turn(scores), DAILY)
    for (_, score), (_, verdict) in zip(in_turn(scores), found, strict=True):
        assert score > 0 or verdict.state != "warn"
    judged = [state for state in states(found) if state != "unknown"]
    most = (max(DAILY.share, 1 - DAILY.share) + 2 * DAILY.step) / (DAILY.step * len(judged))
    assert judged.count("warn") / len(judged) <= DAILY.share + most
    assert found[-1][0].level is None or found[-1][0].level <= 1 + DAILY.step


@pytest.mark.parametrize("periods", [8, 11, 26])
def test_exchangeable_scores_keep_the_budget_at_once(periods):
    """The score of a further period exceeds the threshold with the probability that order statistics give."""
    chance, runs = np.random.default_rng(periods), 4000
    budget = AlarmBudget(period_days=1, step=0, min_periods=periods)
    over = 0
    for scores in chance.exponential(1, (runs, periods + 1)):
        asked = threshold(Watch(closed=tuple(scores[:-1])), budget)
        over += asked is not None and scores[-1] > asked
    place = (periods + 1) * (1 - budget.share)
    least, most = 1 - math.ceil(place) / (periods + 1), 1 - math.floor(place) / (periods + 1)
    surely = binomtest(over, runs).proportion_ci(0.9999, method="exact")
    assert surely.low <= most
    assert surely.high >= least


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_the_threshold_is_numpys_quantile(closed, level):
    asked = threshold(Watch(closed=tuple(closed), level=level), DAILY)
    place = (len(closed) + 1) * (1 - level)
    if 1 <= place <= len(closed):
        assert asked == pytest.approx(np.quantile(closed, 1 - level, method="weibull"), abs=1e-9)
        assert min(closed) <= asked <= max(closed)
    else:
        assert asked == (math.inf if place > len(closed) else -math.inf)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 10)), max_size=90), st.integers(0, 90))
def test_the_state_of_a_day_is_a_function_of_the_days(scores, split):
    budget = AlarmBudget(min_periods=3)
    whole = followed(in_turn(scores), budget)
    watch = Watch()
    for n, (day, score) in enumerate(in_turn(scores)):
        kept = watch
        watch, verdict = advance(Watch.from_record(kept.as_record()), day, score, budget)
        assert (watch, verdict) == advance(kept, day, score, budget) == whole[n]
        if n == split:  # the day is made again: nothing was taken in twice
            assert advance(watch, day, score, budget)[0] == watch


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 10), min_size=7, max_size=7), min_size=1, max_size=14), st.randoms())
def test_the_order_within_a_week_changes_no_threshold(weeks, shuffle):
    budget = AlarmBudget(min_periods=3)
    mixed = [sorted(week, key=lambda _: shuffle.random()) for week in weeks]
    ends = [followed(in_turn([score for week in some for score in week]), budget)[-1][0] for some in (weeks, mixed)]
    assert ends[0] == ends[1]


@given(SCORES, st.sampled_from([0.25, 4.0]))
def test_the_unit_of_the_scores_is_nothing(scores, times):
    other = [score * times for score in scores]
    assert states(followed(in_turn(scores), DAILY)) == states(followed(in_turn(other), DAILY))


def test_a_week_warns_on_its_day_and_tells_it_once():
    usual = [1.0] * 70
    week = [1.0, 5.0, 1.0, 6.0, 1.0, 1.0, 1.0]
    found = followed(in_turn([*usual, *week, 1.0]), AlarmBudget())[-8:]
    assert states(found) == ["pass", "warn", "pass", "warn", "pass", "pass", "pass", "pass"]
    assert [verdict.measures.get("first") for _, verdict in found if verdict.state == "warn"] == [1, 0]
    assert (
        found[1][1].reason == "2024-03-12: 5.00 times the usual largest odds, above 1.00 (25% of the periods may warn)"
    )
    assert found[-1][0].level == pytest.approx(0.25 + 2 * 0.1 * 0.25 + 0.1 * (0.25 - 1))


@given(st.floats(0, 10), st.integers(1, 60), st.floats(0.05, 0.95))
def test_equal_scores_never_exceed_each_other(score, count, level):
    asked = threshold(Watch(closed=(score,) * count, level=level), DAILY)
    assert asked in (score, math.inf, -math.inf)


def test_too_few_weeks_are_unknown():
    found = followed(in_turn([1.0] * 57), AlarmBudget())
    assert set(states(found[:56])) == {"unknown"}
    assert "7 periods have closed before 2024-02-25; 8 are needed" in found[55][1].reason
    assert found[56][1].state == "pass"


@pytest.mark.parametrize("score", [None, math.nan, math.inf])
def test_what_cannot_be_compared_is_unknown_and_spends_nothing(score):
    week = [1.0] * 7
    found = followed(in_turn([*week, *[score] * 7, *week, 1.0]), AlarmBudget(min_periods=1))
    assert states(found)[7:14] == ["unknown"] * 7
    assert found[-1][0].closed == (1.0, 1.0)


def test_a_clock_that_runs_backwards_changes_nothing():
    watch = followed(in_turn([1.0, 2.0, 3.0]), DAILY)[-1][0]
    for day in (MONDAY, MONDAY + timedelta(days=2)):
        after, verdict = advance(watch, day, 9.0, DAILY)
        assert after == watch
        assert verdict.state == "unknown"
        assert "taken in already" in verdict.reason


def test_a_lasting_change_is_told_and_then_becomes_usual():
    chance = np.random.default_rng(1)
    scores = [*chance.uniform(0.5, 1, 140), *chance.uniform(2.5, 3, 280)]
    warned = [verdict.measures.get("first", 0) for _, verdict in followed(in_turn(scores), AlarmBudget())]
    assert warned[140] == 1
    assert sum(warned[140:]) / 40 <= 0.5
