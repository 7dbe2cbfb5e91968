"""The point-in-time join against nested loops: the same row for every question, for any rows."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.features import key_time, point_in_time
from ml_platform.features.point_in_time import newest, newest_known
from ml_platform.spec import StateError

START = datetime(2024, 3, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")

# Quarter hours, now and then a microsecond beside one: ties and rows exactly at the edge of a time to live are common.
moments = st.builds(
    lambda quarter, beside: START + quarter * QUARTER + timedelta(microseconds=beside),
    st.integers(0, 12),
    st.sampled_from([0, 0, 0, 1, -1]),
)
keys = {"city": st.sampled_from(["a", "b", "ü", None]), "line": st.sampled_from([1, 2, -(10**18), None])}
feature_rows = st.lists(st.fixed_dictionaries({**keys, "at": st.none() | moments, "known": st.none() | moments}))
questions = st.lists(st.fixed_dictionaries({**keys, "asked": st.none() | moments}), max_size=12)
lifetimes = st.none() | st.sampled_from([timedelta(0), QUARTER, 3 * QUARTER])


def brute_force(question: dict, rows: list, named: list, known: bool, only_known: bool, ttl: timedelta | None):
    """Which row answers, by looking at every one of them."""
    best, age = None, None
    for number, row in enumerate(rows):
        if question["asked"] is None or row["at"] is None or row["at"] > question["asked"]:
            continue
        if any(row[name] is None or row[name] != question[name] for name in named):
            continue
        if known and only_known and (row["known"] is None or row["known"] > question["asked"]):
            continue
        own = (row["at"], (row["known"] or LONG_AGO) if known else LONG_AGO)
        if age is None or own >= age:
            best, age = number, own
    expired = best is not None and ttl is not None and rows[best]["at"] < question["asked"] - ttl
    return None if expired else best


def frames(rows: list, asked: list) -> tuple[pl.DataFrame, pl.DataFrame]:
    schema = {"city": pl.String, "line": pl.Int64}
    held = pl.DataFrame(rows, {**schema, "at": UTC_TIME, "known": UTC_TIME})
    return pl.DataFrame(asked, {**schema, "asked": UTC_TIME}), held


@pytest.mark.parametrize("bits", [62, 3])
@settings(max_examples=500, deadline=None)
@given(
    rows=feature_rows,
    asked=questions,
    named=st.sampled_from([["city", "line"], ["line"], ["city"], []]),
    known=st.booleans(),
    only_known=st.booleans(),
    ttl=lifetimes,
)
def test_any_question_is_answered_as_by_nested_loops(bits, rows, asked, named, known, only_known, ttl):
    """Also where key and time do not fit into the bits together."""
    questions, held = frames(rows, asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_time, "_BITS", bits)
        patch.setattr(point_in_time, "CHUNK", 5)
        found = newest_known(
            questions, held, keys=named, at="asked", event="at", known="known" if known else None,
            only_known=only_known, ttl=ttl,
        )  # fmt: skip
    assert found.to_list() == [brute_force(question, rows, named, known, only_known, ttl) for question in asked]


@settings(max_examples=150, deadline=None)
@given(feature_rows, st.booleans())
def test_the_newest_row_of_each_key(rows, known):
    _, held = frames(rows, [])
    expected = {}
    for number, row in enumerate(rows):
        key = (row["city"], row["line"])
        own = (row["at"], (row["known"] or LONG_AGO) if known else LONG_AGO)
        if None not in (*key, row["at"]) and (key not in expected or own >= expected[key][0]):
            expected[key] = (own, number)
    found = newest(held, keys=["city", "line"], event="at", known="known" if known else None)
    assert sorted(found.to_list()) == sorted(number for _, number in expected.values())


@settings(max_examples=100, deadline=None)
@given(rows=feature_rows, asked=questions, horizon=moments)
def test_what_becomes_known_later_changes_no_earlier_answer(rows, asked, horizon):
    questions, held = frames(rows, [row for row in asked if row["asked"] and row["asked"] <= horizon])
    held = held.with_row_index("number")
    before = held.filter(pl.col("known") <= horizon)
    with_all, with_past = (
        part["number"].gather(
            newest_known(questions, part, keys=["city", "line"], at="asked", event="at", known="known")
        )
        for part in (held, before)
    )
    assert with_all.to_list() == with_past.to_list()


def one(row_times: pl.Series, asked_times: pl.Series, row_keys=None, asked_keys=None, **how) -> list:
    held = pl.DataFrame({"key": [1] * len(row_times) if row_keys is None else row_keys, "at": row_times})
    asked = pl.DataFrame({"key": [1] * len(asked_times) if asked_keys is None else asked_keys, "asked": asked_times})
    return newest_known(asked, held, keys=["key"], at="asked", event="at", **how).to_list()


def test_times_of_any_unit_and_zone_are_compared_as_moments():
    noon = (START + timedelta(hours=12)).replace(tzinfo=None)
    for unit in ("ms", "us", "ns"):
        for asked_unit in ("ms", "us", "ns"):
            held = pl.Series([noon, noon + QUARTER], dtype=pl.Datetime(unit))
            asked = pl.Series([noon - QUARTER, noon, noon + QUARTER / 2], dtype=pl.Datetime(asked_unit))
            aware = asked.dt.replace_time_zone("UTC").dt.convert_time_zone("America/New_York")
            assert one(held, asked) == one(held, aware) == [None, 0, 0]
    days = pl.Series([noon.date()])
    assert one(days, pl.Series([noon, noon - timedelta(days=1)])) == [0, None]
    # Half a microsecond later is later.
    fine = pl.Series([1_000_000_500], dtype=pl.Int64).cast(pl.Datetime("ns"))
    assert one(fine, pl.Series([1_000_000], dtype=pl.Int64).cast(pl.Datetime("us"))) == [None]


def test_keys_of_other_types():
    at, asked = pl.Series([START, START]), pl.Series([START, START, START])
    assert one(at, asked, [7, 8], [8.0, None, 7.0]) == [1, None, 0], "pandas keeps integers with a gap as floats"
    assert one(at, asked, pl.Series([7, 8], dtype=pl.Int8), [8, 700, 7]) == [1, None, 0]
    assert one(at, asked, pl.Series([2**64 - 1, 8], dtype=pl.UInt64), [8, -1, 7]) == [1, None, None]
    assert one(at, asked, ["x", "y"], pl.Series(["y", "z", "x"], dtype=pl.Categorical)) == [1, None, 0]
    assert one(at, asked, [True, False], [False, None, True]) == [1, None, 0]
    assert one(at, asked, [b"x", b"\xff"], [b"\xff", b"z", b"x"]) == [1, None, 0]
    days = [START.date(), START.date() + timedelta(days=1)]
    assert one(at, asked, days, [days[1], None, days[0]]) == [1, None, 0]
    assert one(at, asked, [2.5, 8.0], [8, 7, 2]) == [1, None, None]
    assert one(at, asked, [7, 8], pl.Series([None, None, None])) == [None, None, None]


def test_what_cannot_be_compared_is_refused_in_words():
    at = pl.Series([START])
    with pytest.raises(StateError, match="the key key is String where values are asked for, but Int64"):
        one(at, at, [1], ["1"])
    with pytest.raises(StateError, match="the key key is Float64"):
        one(at, at, [1], [1.5])
    with pytest.raises(StateError, match="the column at is String where a time is needed"):
        one(pl.Series(["2024-03-01"]), at)


def test_keys_in_great_number_are_numbered_by_those_that_occur():
    """Three columns of distant integers: their product does not fit into any integer."""
    count = 1000
    wide = pl.int_range(count, eager=True) * 10**15
    held = pl.DataFrame({"a": wide, "b": wide.reverse(), "c": wide}).with_columns(at=pl.lit(START))
    asked = pl.concat([held, held.with_columns(c=pl.col("c") + 1)]).rename({"at": "asked"})
    found = newest_known(asked, held, keys=["a", "b", "c"], at="asked", event="at")
    assert found.to_list() == [*range(count), *([None] * count)]
