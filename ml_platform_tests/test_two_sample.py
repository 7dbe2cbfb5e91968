"""The two-sample tests: centred where nothing differs, and a wrong join is seen though no column changed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from ml_platform.monitoring.joins import exchanged, join_distances
from ml_platform.monitoring.two_sample import joint_distance, two_sample_auc
from ml_platform.spec.alarms import JointRule

RULE = JointRule(rows=300, min_rows=40, rounds=15, leaves=7)
BLOCKS = ((0, 1), (2, 3), (4,))


def days_of_rows(chance, days=8, rows=120):
    """Three tables joined by a common cause; each day has a weather of its own, which all its rows share."""
    day = np.repeat(np.arange(days), rows)
    cause, weather = chance.normal(size=len(day)), chance.normal(0, 2, days)[day]
    noise = chance.normal(size=(len(day), 5))
    values = np.column_stack([cause, weather, cause, weather, cause]) + 0.2 * noise
    values[chance.random(len(day)) < 0.1, 3] = np.nan
    return values, day


def split(values, day, last=7):
    return values[day == last], values[day != last], day[day != last]


def test_samples_of_one_source_are_not_told_apart():
    chance = np.random.default_rng(0)
    found = np.array(
        [two_sample_auc(chance.normal(size=(90, 4)), chance.normal(size=(130, 4)), RULE, n) for n in range(60)]
    )
    assert abs(found.mean() - 0.5) < 3.5 * found.std() / np.sqrt(len(found))
    assert 0.02 < found.std() < 0.08


def test_other_samples_are():
    chance = np.random.default_rng(1)
    far = two_sample_auc(chance.normal(9, size=(200, 3)), chance.normal(size=(200, 3)), RULE, 0)
    assert far == pytest.approx(1)
    one, other = chance.normal(size=(2, 400, 2))
    one[:, 1] = one[:, 0] * np.sign(one[:, 1])  # each column as before, the two bound together
    joint = two_sample_auc(one, other, JointRule(rows=400, rounds=30), 0)
    assert joint > 0.65
    assert joint_distance(joint) == pytest.approx(2 * joint - 1)
    assert joint_distance(0.4) == 0


def test_equal_inputs_give_equal_bits():
    values, day = days_of_rows(np.random.default_rng(2))
    current, reference, days = split(values, day)
    assert two_sample_auc(current, reference, RULE, 5) == two_sample_auc(current, reference, RULE, 5)
    once, again = (join_distances(current, reference, days, BLOCKS, RULE, 5) for _ in range(2))
    assert np.array_equal(once, again)


def test_too_few_rows_or_columns_are_no_answer():
    rows = np.zeros((100, 2))
    assert two_sample_auc(rows[:39], rows, RULE, 0) is None
    assert two_sample_auc(rows, rows[:0], RULE, 0) is None
    assert two_sample_auc(rows[:, :0], rows[:, :0], RULE, 0) is None
    assert two_sample_auc(rows, rows, RULE, 0) == 0.5  # constant columns: nothing to tell them apart by
    empty = np.full((100, 2), np.nan)
    assert two_sample_auc(empty, empty, RULE, 0) == 0.5
    days = np.repeat([0, 1], 50)
    one_day = np.zeros(100, dtype=int)  # nothing is held back
    assert join_distances(rows, rows, days, [(0, 1)], RULE, 0) is None
    assert join_distances(rows[:1], rows, days, [(0,), (1,)], RULE, 0) is None
    assert join_distances(rows, rows, one_day, [(0,), (1,)], RULE, 0) is None
    assert not join_distances(rows, rows, days, [(0,), (1,)], RULE, 0).any()
    assert not join_distances(empty, empty, days, [(0,), (1,)], RULE, 0).any()


def test_exchanging_changes_no_column_of_a_day_and_one_block_of_a_row():
    values, day = days_of_rows(np.random.default_rng(3))
    values = np.nan_to_num(values, nan=-9)
    mixed = exchanged(values, day, BLOCKS, np.random.default_rng(4))
    changed = np.array([(mixed[:, block] != values[:, block]).any(axis=1) for block in BLOCKS])
    assert (changed.sum(axis=0) == 1).all()
    for n in np.unique(day):
        for block in BLOCKS:
            there = {tuple(row) for row in values[day == n][:, block]}
            assert {tuple(row) for row in mixed[day == n][:, block]} <= there


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 99))
def test_rows_take_from_rows_of_their_day(days, seed):
    of = np.array(days)
    rows = np.arange(len(of), dtype=float)[:, None]
    taken = exchanged(rows, of, [(0,)], np.random.default_rng(seed))[:, 0].astype(int)
    assert sorted(taken) == list(range(len(of)))
    assert np.array_equal(of[taken], of)
    alone = np.bincount(of)[of] == 1
    assert np.array_equal(taken == np.arange(len(of)), alone)


def test_a_wrong_join_is_seen_and_named_though_every_day_has_its_own_weather():
    chance = np.random.default_rng(6)
    clean, wrong, plain = [], [], []
    for n in range(10):
        current, reference, days = split(*days_of_rows(chance))
        clean.append(join_distances(current, reference, days, BLOCKS, RULE, n))
        plain.append(two_sample_auc(current, reference, RULE, n))
        joined = current.copy()
        joined[:, [2, 3]] = current[chance.permutation(len(current))][:, [2, 3]]
        wrong.append(join_distances(joined, reference, days, BLOCKS, RULE, n))
    assert np.max(clean) < np.min(wrong, axis=0)[1]
    assert np.mean(np.argmax(wrong, axis=1) == 1) >= 0.8  # others lose by it what they had to do with that block
    assert np.mean(plain) > 0.8  # the classifier of days tells a day like any other from them


def test_what_is_as_usual_falls_as_often_as_it_rises():
    """Blocks that never had to do with each other have nothing to lose, whatever the day."""
    chance, found = np.random.default_rng(7), []
    for n in range(30):
        rows, day = chance.normal(size=(400, 3)), np.repeat(np.arange(5), 80)
        found.append(join_distances(*split(rows, day, 4), [(0,), (1,), (2,)], RULE, n))
    fell = np.array(found) > 0
    assert binomtest(int(fell.sum()), fell.size).pvalue > 0.001
    assert np.max(found) < 0.3
