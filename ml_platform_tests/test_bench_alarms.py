"""The bench of alarms judges days as the assets do, and its peers and faults are what they say."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from ml_platform.bench.monitoring_alarms import incidents, naive_weeks, warned_weeks
from ml_platform.bench.monitoring_days import Compared, Days
from ml_platform.bench.monitoring_naive import benjamini_hochberg, naive, psi
from ml_platform.bench.monitoring_planted import JOINT, SHARP
from ml_platform.bench.monitoring_worlds import FIRST, seasonal, stationary
from ml_platform.monitoring.drift import drift
from ml_platform.monitoring.layouts import learn
from ml_platform.monitoring.profile import profile
from ml_platform.monitoring.profile_table import to_rows
from ml_platform.spec import DriftPolicy
from ml_platform.spec.alarms import AlarmBudget, Seasons, SharpRule


def test_a_day_is_as_far_as_the_drift_assets_say():
    days = seasonal(60, np.random.default_rng(3))
    place, seasons = 56, Seasons(recent_days=42)
    frames = [pl.DataFrame(days.rows(n), schema=days.names, orient="row").fill_nan(None) for n in range(place + 1)]
    layouts = learn(pl.concat(frames[:place]), days=place)
    rows = pl.concat(to_rows(profile(frame, layouts), days.date(n)) for n, frame in enumerate(frames))
    policy = DriftPolicy(name="made", table="made", min_rows=1, seasons=seasons)
    _, table = drift(rows, days.date(place), policy)
    told = {row["feature"]: row for row in table.iter_rows(named=True)}
    found = days.compared(place, seasons)
    for name, distance, usual in zip(found.features, found.distances, found.usual, strict=True):
        assert distance == pytest.approx(told[name]["distance"], abs=1e-9), name
        assert usual == pytest.approx(told[name]["usual_maximum"], abs=1e-9)
    assert found.score == pytest.approx(told["all features"]["distance"])
    failing = [name for name in found.features if told[name]["verdict"] == "fail"]
    assert sorted(found.paged(policy.sharp)) == sorted(failing)


def test_too_little_history_has_no_score():
    days = stationary(30, np.random.default_rng(0))
    assert days.compared(20, Seasons()).score is None
    assert days.compared(28, Seasons()).score is not None
    assert days.date(0) == FIRST
    assert FIRST.weekday() == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_is_scipys(values):
    found = np.array(values)
    adjusted = false_discovery_control(found)
    if not np.isclose(adjusted, 0.05, rtol=1e-9).any():
        assert benjamini_hochberg(found, 0.05) == bool((adjusted <= 0.05).any())


def test_psi_is_nothing_for_equal_rows_and_large_for_other_ones():
    rows = np.random.default_rng(0).normal(size=2000)
    assert psi(rows, rows) == 0
    assert psi(rows + 2, rows) > 1
    assert psi(rows[:300] + 0.01, rows) < 0.2


def test_the_naive_rules_see_a_moved_column_and_are_told_by_week():
    days = stationary(42, np.random.default_rng(1))
    moved = days.values.copy()
    moved[days.place >= 35, 0] += 3
    assert all(naive(Days(days.names, moved, days.place, FIRST), 35).values())
    assert len(set(map(len, naive_weeks([stationary(105, np.random.default_rng(2))]).values()))) == 1


def features():
    chance = np.random.default_rng(0)
    names = [
        "carrier", "origin", "dest", "scheduled_flight__hour", "scheduled_flight__distance", "aircraft__year",
        "aircraft__seats", "previous_leg__arr_delay_last_1d", "weather_now__temp_last_6h", "weather_now__dewp_last_6h",
        "weather_now__wind_speed_last_6h", "weather_now__pressure_last_6h", "origin_departures__dep_delay_count_1h",
        "origin_departures__dep_delay_mean_1h", "origin_departures__late_share_1h", "origin_demand__waiting_6h",
        "origin_carrier_departures__dep_delay_mean_3h", "origin_cancellations__cancelled_share_3h",
        "carrier_arrivals__late_share_1d", "inbound_aircraft__newest_delay", "destination_arrivals__arr_delay_mean_6h",
        "route_arrivals__late_share_14d",
    ]  # fmt: skip
    rows = chance.normal(50, 9, (120, len(names)))
    rows[:, :3] = chance.integers(0, 3, (120, 3))
    return rows, names


@pytest.mark.parametrize("name", [*SHARP, *JOINT])
def test_a_fault_changes_some_rows_and_not_the_given_ones(name):
    rows, names = features()
    before = rows.copy()
    wrong = {**SHARP, **JOINT}[name](rows, names, np.random.default_rng(1))
    assert np.array_equal(rows, before)
    assert wrong.shape == rows.shape
    assert not np.array_equal(wrong, rows, equal_nan=True)
    if name in JOINT:
        assert np.array_equal(np.sort(wrong, axis=0), np.sort(rows, axis=0))


def test_a_fault_names_what_is_not_there():
    with pytest.raises(ValueError, match="no feature begins with aircraft; there are one, two"):
        SHARP["feed lost: aircraft"](np.zeros((3, 2)), ["one", "two"], np.random.default_rng(1))


def test_pages_are_counted_by_stretch_and_warnings_by_week():
    assert incidents([]) == 0
    assert incidents([True, True, False, True, False]) == 2
    level = [1.0] * 63 + [1.0, 9.0] + [1.0] * 5
    usual = np.array([0.05])
    judged = [
        Compared(day=FIRST + timedelta(days=n), features=["a"], distances=np.array([far / 20]), usual=usual)
        for n, far in enumerate(level)
    ]
    assert warned_weeks(judged, AlarmBudget()) == [False, True]
    assert warned_weeks(judged[:-1], AlarmBudget()) == [False]  # the last week is not whole
    assert [day.paged(SharpRule()) for day in judged if day.score > 5] == [["a"]]
