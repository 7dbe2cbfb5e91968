"""The days that a day is compared with: of its season, of its weekdays, never its future."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.monitoring.seasons import references
from ml_platform.spec.alarms import Seasons
from ml_platform.spec.calendar import days_between

RULE = Seasons()
WEDNESDAY = date(2024, 7, 10)
DAYS = st.dates(date(2022, 1, 1), date(2024, 12, 31))


def back(days: int, until: date = WEDNESDAY) -> list[date]:
    return days_between(until - timedelta(days=days), until - timedelta(days=1))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(DAYS, min_size=1, max_size=7),
    st.frozensets(DAYS, max_size=400),
    st.frozensets(DAYS, max_size=20),
    st.frozensets(DAYS, max_size=20),
)
def test_they_are_known_earlier_right_and_no_holiday(current, history, wrong, holidays):
    rule = Seasons(recent_days=200, around_days=30, years=2, alike_days=2, min_days=4, holidays=holidays)
    found = references(current, history, rule, left_out=wrong)
    assert list(found.days) == sorted(set(found.days))
    assert set(found.days) <= history - wrong
    assert all(day < min(current) for day in found.days)
    assert found == references(current[::-1], sorted(history, reverse=True), rule, left_out=sorted(wrong))
    if not holidays.intersection(current):
        assert holidays.isdisjoint(found.days)
    assert found.enough is (len(found.days) >= (2 if "holidays" in found.why else 4))
    far = timedelta(days=200)
    spans = [(min(current) - far, max(current))] + [
        (min(current) - timedelta(days=364 * n + 30), max(current) - timedelta(days=364 * n - 30)) for n in (1, 2)
    ]
    if not holidays.intersection(current):
        assert all(any(low <= day <= high for low, high in spans) for day in found.days)


def test_every_weekday_as_often():
    for current in ([WEDNESDAY], days_between(WEDNESDAY, WEDNESDAY + timedelta(days=6))):
        found = references(current, back(200), RULE)
        assert [sum(day.weekday() == n for day in found.days) for n in range(7)] == [12] * 7
        assert found.why == "84 days of the 84 days before"


def test_too_little_history_is_said():
    found = references([WEDNESDAY], back(27), RULE)
    assert not found.enough
    assert found.why == "only 27 days of the 84 days before to compare 2024-07-10 with; 28 are needed"
    assert references([WEDNESDAY], back(28), RULE).enough
    assert not references([WEDNESDAY], [], RULE).enough
    assert not references([WEDNESDAY], [], replace(RULE, min_days=0)).enough


def test_history_grows_into_the_same_time_of_year():
    for length, days, seasons in ((300, 84, False), (384, 84, False), (385, 84 + 43, True), (800, 84 + 43, True)):
        found = references([WEDNESDAY], back(length), RULE)
        assert len(found.days) == days, length
        assert ("same time of year a year ago" in found.why) is seasons
    assert min(found.days) == WEDNESDAY - timedelta(days=364 + 21)


def test_two_years_ago_counts_where_it_is_asked_for():
    found = references([WEDNESDAY], back(800), replace(RULE, years=2))
    assert len(found.days) == 84 + 43 + 43
    assert "up to 2 years ago" in found.why


def test_a_holiday_is_compared_with_holidays_if_there_are_enough():
    holidays = frozenset(date(year, month, 4) for year in (2022, 2023, 2024) for month in range(1, 8))
    some = date(2024, 7, 4)
    many = references([some], back(900, some), replace(RULE, holidays=holidays))
    assert set(many.days) <= holidays
    assert many.enough
    assert many.why == f"{len(many.days)} days of the holidays before"
    few = references([some], back(84, some), replace(RULE, holidays=frozenset({some})))
    assert len(few.days) == 84


def test_no_current_day_is_an_error():
    with pytest.raises(ValueError, match="no current day"):
        references([], back(84), RULE)
