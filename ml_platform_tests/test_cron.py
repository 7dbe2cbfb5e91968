"""Five cron fields against croniter, which Dagster brings along, on every hour and minute that a field can name."""

from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ml_platform.spec.cron import last_tick, next_tick, problems

NEW_YORK = "America/New_York"


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # croniter takes 3-3 for every number.
    pair = st.tuples(number, number).filter(lambda pair: pair[0] < pair[1])
    span = pair.map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 7)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    one = st.one_of(number.map(str), span, step)
    return st.one_of(st.just("*"), one, st.lists(one, min_size=2, max_size=3).map(",".join))


CRONS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join)
MOMENTS = st.integers(0, 9_000_000).map(lambda minutes: datetime(2012, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes))


@settings(max_examples=60, deadline=None)
@given(CRONS, MOMENTS)
def test_as_croniter_finds_them(cron: str, moment: datetime) -> None:
    _, _, month_day, _, week_day = cron.split()
    assume("*/" not in month_day + week_day)  # to cron a day that begins with * restricts nothing, to croniter it does
    croniter: Any = import_module("dagster._vendored.croniter").croniter

    moment = moment.replace(second=1, microsecond=0)
    assert next_tick(cron, moment, "UTC") == croniter(cron, moment).get_next(datetime)
    assert last_tick(cron, moment, "UTC") == croniter(cron, moment).get_prev(datetime)


@settings(max_examples=30, deadline=None)
@given(CRONS, MOMENTS)
def test_the_next_of_the_last_is_the_next(cron: str, moment: datetime) -> None:
    last, following = last_tick(cron, moment, NEW_YORK), next_tick(cron, moment, NEW_YORK)
    assert last is not None
    assert following is not None
    assert last <= moment < following
    assert next_tick(cron, last, NEW_YORK) == following
    assert last_tick(cron, following, NEW_YORK) == following
    assert last_tick(cron, following - timedelta(microseconds=1), NEW_YORK) == last


def test_local_times_that_clocks_skip_and_repeat() -> None:
    spring, autumn = datetime(2024, 3, 10, 5, tzinfo=UTC), datetime(2024, 11, 3, 4, tzinfo=UTC)
    assert next_tick("30 2 * * *", spring, NEW_YORK) == datetime(2024, 3, 10, 7, 30, tzinfo=UTC)  # 03:30 there
    first = next_tick("30 1 * * *", autumn, NEW_YORK)
    assert first == datetime(2024, 11, 3, 5, 30, tzinfo=UTC)
    assert next_tick("30 1 * * *", first, NEW_YORK) == datetime(2024, 11, 4, 6, 30, tzinfo=UTC)  # once


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "60 * * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *", "5-1 * * * *", "*/0 * * * *"],
)
def test_what_is_no_cron_is_said(cron: str) -> None:
    (said,) = problems(cron)
    assert repr(cron) in said


def test_a_day_that_no_month_has() -> None:
    assert problems("0 0 30 2 *") == ["cron='0 0 30 2 *' never comes up: no month has such a day"]
    assert problems("0 0 29 2 *") == []
    assert last_tick("0 0 30 2 *", datetime(2024, 1, 1, tzinfo=UTC), "UTC") is None
