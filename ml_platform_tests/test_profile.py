"""Profiles add up to what counting all rows gives, and say what numpy says of the rows; also of bad columns."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zlib import crc32

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.monitoring.layouts import ENOUGH_DAYS, are_due, edges, is_crowded, learn
from ml_platform.monitoring.profile import BUCKETS, ColumnProfile, Layout, merge, profile
from ml_platform.monitoring.profile_table import COLUMNS, histories, newest_layouts, table_of, to_rows
from ml_platform.spec import PlatformError

DAY = date(2024, 3, 10)
ODD = [None, float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.0, -1.0, 1e300, -1e300, 5e-324, 1.5]
NUMBERS = st.lists(st.sampled_from(ODD) | st.floats(allow_nan=True, width=32), max_size=60)
TEXTS = st.lists(st.none() | st.sampled_from(["", "JFK", "LGA", "É", "x" * 300]) | st.text(max_size=3), max_size=60)


def numbers(values: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame({"x": pl.Series(values, dtype=pl.Float64)})


def texts(values: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame({"x": pl.Series(values, dtype=pl.String)})


def is_same(one: ColumnProfile, other: ColumnProfile) -> bool:
    exact = ("rows", "missing", "below", "above", "zeros", "minimum", "maximum")
    close = all(
        np.isclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-9, equal_nan=True)
        for name in ("mean", "m2")
        if abs(one.maximum) < 1e100 and abs(one.minimum) < 1e100  # beyond, squares are infinite
    )
    return close and bool(np.array_equal(one.counts, other.counts)) and all(
        getattr(one, name) == getattr(other, name) for name in exact
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_profiles_of_parts_add_up_to_that_of_the_whole(reference: list, one: list, other: list) -> None:
    layouts = learn(numbers(reference), days=1)
    parts = [profile(numbers(part), layouts)[0] for part in (one, other)]
    (whole,) = profile(numbers(one + other), layouts)
    assert is_same(parts[0] + parts[1], whole)
    assert is_same(parts[1] + parts[0], whole)
    stored = pl.concat(to_rows([part], DAY + timedelta(days=day)) for day, part in enumerate(parts))
    assert is_same(histories(stored)["x"].total(), whole)


@settings(max_examples=80, deadline=None)
@given(NUMBERS, NUMBERS)
def test_a_profile_says_what_counting_one_by_one_says(reference: list, values: list) -> None:
    (layout,) = learn(numbers(reference), days=1)
    (found,) = profile(numbers(values), [layout])
    assert np.all(np.diff(layout.edges) > 0)
    assert np.all(np.isfinite(layout.edges))
    held = [value for value in values if value is not None and not np.isnan(value)]
    finite = [value for value in held if np.isfinite(value)]
    counts = np.zeros(len(layout.edges) + 1, dtype=np.int64)
    for value in finite:
        counts[sum(value >= edge for edge in layout.edges)] += 1
    assert found.counts.tolist() == counts.tolist()
    assert (found.rows, found.missing) == (len(values), len(values) - len(held))
    assert (found.below, found.above) == (held.count(-np.inf), held.count(np.inf))
    assert found.zeros == finite.count(0.0)
    assert found.rows == found.missing + found.below + found.above + found.finite
    if finite:
        assert (found.minimum, found.maximum) == (min(finite), max(finite))
    if finite and max(map(abs, finite)) < 1e100:
        assert found.mean == pytest.approx(np.mean(finite), rel=1e-9, abs=1e-300)
        assert found.deviation == pytest.approx(np.std(finite), rel=1e-6, abs=1e-9 * max(1.0, max(map(abs, finite))))


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_profiles_of_text_add_up_and_count_each_value(reference: list, one: list, other: list) -> None:
    (layout,) = learn(texts(reference), days=1)
    parts = [profile(texts(part), [layout])[0] for part in (one, other)]
    (whole,) = profile(texts(one + other), [layout])
    assert is_same(parts[0] + parts[1], whole)
    values, frequent = [value for value in one + other if value is not None], layout.categories.tolist()
    counts = [0] * (len(frequent) + BUCKETS)
    for value in values:
        code = crc32(value.encode())
        counts[frequent.index(code) if code in frequent else len(frequent) + code % BUCKETS] += 1
    assert whole.counts.tolist() == counts
    assert (whole.missing, whole.zeros) == (len(one + other) - len(values), values.count(""))


def test_long_columns_are_counted_in_blocks_and_runs_without_losing_a_row() -> None:
    chance = np.random.default_rng(1)
    values = np.where(chance.random(200_001) < 0.1, np.nan, chance.standard_cauchy(200_001))
    values[:3] = [np.inf, -np.inf, 0.0]
    (layout,) = learn(numbers(list(values[:5000])), days=1)
    (found,) = profile(numbers(list(values)), [layout])
    finite = values[np.isfinite(values)]
    counts = np.bincount(np.searchsorted(layout.edges, finite, side="right"), minlength=layout.bins)
    assert np.array_equal(found.counts, counts)
    assert (found.missing, found.above, found.below, found.zeros) == (int(np.isnan(values).sum()), 1, 1, 1)
    assert found.mean == pytest.approx(finite.mean())
    assert found.deviation == pytest.approx(finite.std())


def test_the_order_of_rows_and_how_they_are_cut_does_not_matter() -> None:
    chance = np.random.default_rng(2)
    values = numbers(list(chance.normal(size=900)))
    layouts = learn(values, days=1)
    (whole,) = profile(values, layouts)
    assert is_same(profile(values.sample(fraction=1, shuffle=True, seed=3), layouts)[0], whole)
    cuts = [0, 1, 17, 600, 900]
    parts = [profile(values[a:b], layouts)[0] for a, b in pairwise(cuts)]
    assert is_same(merge(parts), whole)


# Where the bins lie


def test_bins_hold_equally_many_and_a_shared_value_has_its_own() -> None:
    chance = np.random.default_rng(3)
    values = chance.normal(size=64_000)
    (layout,) = learn(numbers(list(values)), days=1)
    (found,) = profile(numbers(list(values)), [layout])
    assert found.counts[[0, -1]].tolist() == [0, 0]  # far outside
    assert found.counts[1:-1].min() > 900
    assert found.counts.max() < 1100
    half = np.where(chance.random(64_000) < 0.5, 7.0, values)
    (layout,) = learn(numbers(list(half)), days=1)
    (found,) = profile(numbers(list(half)), [layout])
    assert found.counts[layout.single].tolist() == [int((half == 7.0).sum())]


@pytest.mark.parametrize(("values", "bins"), [([7.0] * 5, 3), ([None] * 5, 1), ([], 1), ([1.7e308, -1.7e308], 3)])
def test_columns_with_little_in_them_have_bins_as_well(values: list, bins: int) -> None:
    (layout,) = learn(numbers(values), days=1)
    assert layout.bins == bins
    (found,) = profile(numbers([6.0, 7.0, 8.0, None]), [layout])
    assert (found.finite, found.missing) == (3, 1)
    if values == [7.0] * 5:
        assert found.counts.tolist() == [1, 1, 1]  # below, the constant, above


def test_a_value_that_lies_far_outside_is_counted_apart() -> None:
    found = edges(np.arange(101.0))
    (layout,) = learn(numbers(list(np.arange(101.0))), days=1)
    (far,) = profile(numbers([-49.0, 149.0, -51.0, 151.0]), [layout])
    assert (found[0], round(found[-1], 6)) == (-50.0, 150.0)
    assert far.counts[[0, -1]].tolist() == [1, 1]


def test_bins_are_learned_anew_when_days_double_until_two_months_are_known() -> None:
    days = range(1, 400)
    (layout,) = learn(numbers([1.0, 2.0]), days=1)
    learned = [1]
    for day in days:
        kept = [Layout(column="x", kind="number", edges=layout.edges, learned_days=learned[-1])]
        if are_due(kept, day, []):
            learned.append(day)
    assert learned == [1, 2, 4, 8, 16, 32, 64]
    assert learned[-1] >= ENOUGH_DAYS
    assert are_due([], 1, []) == "there are none yet"


def test_bins_that_values_crowd_in_are_learned_anew_after_four_weeks() -> None:
    winter, summer = (numbers(list(np.random.default_rng(4).normal(at, 8, 5000))) for at in (35.0, 80.0))
    layouts = learn(winter, days=ENOUGH_DAYS)
    (fits,), (crowds,) = profile(winter, layouts), profile(summer, layouts)
    assert not is_crowded(fits)
    assert is_crowded(crowds)
    assert are_due(layouts, 90, [fits]) is None
    assert are_due(layouts, 80, [crowds]) is None
    assert are_due(layouts, 90, [crowds]) == "values crowd in few bins of x"
    constant = learn(numbers([7.0] * 50), days=ENOUGH_DAYS)
    assert not is_crowded(profile(numbers([7.0] * 50), constant)[0])


# Types and columns


def test_each_type_is_counted_as_what_it_tells() -> None:
    known = [datetime(2024, 3, 10, hour, 30, tzinfo=UTC) for hour in (1, 2, 3)]
    frame = pl.DataFrame(
        {
            "moment": [at - timedelta(hours=2) for at in known],
            "naive": [at.replace(tzinfo=None) - timedelta(hours=2) for at in known],
            "day": [date(2024, 3, 10)] * 3,
            "span": [timedelta(minutes=90)] * 3,
            "flag": [True, False, None],
            "whole": pl.Series([1, 2, None], dtype=pl.Int32),
            "kind": pl.Series(["a", "b", "a"], dtype=pl.Categorical),
            "list": [[1, 2], [], None],
            "nothing": pl.Series([None] * 3, dtype=pl.Null),
            "known_at": known,
        }
    )
    found = {one.column: one for one in profile(frame, learn(frame, days=1))}
    assert [found[name].mean for name in ("moment", "naive", "span")] == pytest.approx([2.0, 2.0, 1.5])
    assert found["day"].mean == pytest.approx(2.5)  # from midnight to half past two
    assert found["known_at"].mean == pytest.approx(2.5)
    assert [(found[name].missing, found[name].finite) for name in ("flag", "whole", "nothing")] == [
        (1, 2),
        (1, 2),
        (3, 0),
    ]
    assert (found["list"].rows, found["list"].missing, found["list"].finite) == (3, 1, 0)
    assert found["kind"].counts[:2].tolist() == [2, 1]
    local = frame.with_columns(pl.col("known_at").dt.convert_time_zone("America/New_York"))
    there = {one.column: one for one in profile(local, learn(local, days=1))}
    assert there["known_at"].counts.sum() == 3
    assert (there["known_at"].minimum, there["moment"].mean) == (20.5, pytest.approx(2.0))
    shifted = frame.with_columns(pl.col("moment") + timedelta(hours=1))
    assert profile(shifted, learn(frame, days=1))[0].mean == pytest.approx(1.0)


def test_a_column_that_vanished_is_not_there_and_one_of_another_type_is_missing_altogether() -> None:
    layouts = learn(pl.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]}), days=1)
    (found,) = profile(pl.DataFrame({"x": ["1", "2", "3"]}), layouts)
    assert (found.column, found.rows, found.missing, found.finite) == ("x", 3, 3, 0)
    assert profile(pl.DataFrame(), layouts) == []


def test_an_empty_partition_is_one_without_rows() -> None:
    layouts = learn(numbers([1.0, 2.0]), days=1)
    (found,) = profile(numbers([]), layouts)
    assert (found.rows, found.missing, found.finite, found.deviation) == (0, 0, 0, 0.0)


def test_a_huge_count_of_categories_takes_as_many_buckets_as_any() -> None:
    values = [f"tail {number}" for number in range(70_000)]
    (layout,) = learn(texts(values), days=1)
    (found,) = profile(texts(values), [layout])
    assert (layout.bins, found.finite) == (64, 70_000)


def test_counts_in_other_bins_are_never_added() -> None:
    (one,), (other,) = (profile(numbers([1.0]), learn(numbers(values), days=1)) for values in ([1.0, 2.0], [1.0, 3.0]))
    with pytest.raises(PlatformError, match=r"profiles of x \(version 1\) and of x .* different bins"):
        one + other


# At rest


def test_rows_are_read_back_as_they_were_and_name_nobody() -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0, None], "line": ["B6", "UA", None], "gone": [None] * 3})
    found = profile(frame, learn(frame, days=3, version=2))
    rows = to_rows(found, DAY)
    assert rows.schema == pl.Schema(COLUMNS)
    assert "B6" not in str(rows.to_dicts())
    back = {name: next(history.profiles()) for name, history in histories(rows).items()}
    assert all(is_same(one, back[one.column]) for one in found)
    assert [layout.column for layout in newest_layouts(rows)] == ["x", "line", "gone"]
    assert all(layout.same_as(one.layout) for layout, one in zip(newest_layouts(rows), found, strict=True))
    assert newest_layouts(rows.clear()) == []
    assert histories(rows.clear()) == {}
    assert table_of(("raw", "weather")) == "profiles/raw/weather"


def test_days_in_other_bins_than_the_newest_are_left_out_of_a_history() -> None:
    old, new = learn(numbers([1.0, 2.0]), days=1), learn(numbers([1.0, 9.0]), days=2, version=2)
    rows = pl.concat(
        to_rows(profile(numbers([1.0]), layouts), DAY + timedelta(days=n)) for n, layouts in enumerate([old, new, new])
    )
    history = histories(rows)["x"]
    assert history.days.tolist() == [DAY + timedelta(days=1), DAY + timedelta(days=2)]
    assert history.on([DAY]).total().rows == 0
    assert history.between(DAY, DAY + timedelta(days=1)).total().rows == 1
