"""Windows against brute force: every value equal to the bit, for any history."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.features.oracle import Oracle
from ml_platform.features.windows import AS_OF, feature_rows, values_at
from ml_platform.spec import Active, Entity, FeatureView, Latest, Window

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SPANS = (timedelta(hours=1), timedelta(hours=5), timedelta(minutes=90))
NUMBERS = ("count", "sum", "mean", "std", "min", "max", "first", "last", "change", "distinct")
UTC_TIME = pl.Datetime("us", "UTC")

VIEW = FeatureView(
    name="trips",
    source="trips",
    entities=(Entity(name="city"), Entity(name="line", dtype="int64")),
    time="at",
    description="Everything a window can do.",
    derive={"late": pl.col("minutes") > 5},
    features=(
        *(Window("minutes", kind, over=SPANS) for kind in NUMBERS),
        *(Window("fare", kind, over=SPANS) for kind in NUMBERS),
        Window("late", "share", over=SPANS),
        Window("note", "distinct", over=SPANS),
        Latest("minutes", "int64", name="newest"),
        Active(opened_at="at", closed_by=("ends", "losses"), key=("trip",), expires_after=3 * HOUR, name="open"),
    ),
)
# Quarter hours, so that ties and events exactly on a window's edge are common.
moments = st.integers(0, 4 * 30).map(lambda quarter: START + quarter * timedelta(minutes=15))
trips = st.lists(
    st.fixed_dictionaries(
        {
            "city": st.sampled_from(["a", "b", None]),
            "line": st.integers(1, 2),
            "at": moments,
            "wait": st.integers(-2, 12),
            "minutes": st.none() | st.integers(-20, 90),
            "fare": st.none() | st.floats(-100, 1000, allow_nan=False),
            "note": st.sampled_from(["x", "y", "z", None]),
        }
    ),
    max_size=25,
)
closings = st.lists(st.tuples(st.integers(0, 25), moments), max_size=15)


def frames_of(rows: list[dict], ends: list[tuple], losses: list[tuple]) -> dict[str, pl.DataFrame]:
    schema = {"trip": pl.Int64, "city": pl.String, "line": pl.Int64, "at": UTC_TIME, "known_at": UTC_TIME}
    listed = [
        {"trip": n, **row, "known_at": row["at"] + row["wait"] * timedelta(minutes=15)} for n, row in enumerate(rows)
    ]
    closing = {"trip": pl.Int64, "known_at": UTC_TIME}
    return {
        "trips": pl.DataFrame(listed, {**schema, "minutes": pl.Int64, "fare": pl.Float64, "note": pl.String}),
        "ends": pl.DataFrame(ends, closing, orient="row"),
        "losses": pl.DataFrame(losses, closing, orient="row"),
    }


def assert_equal(found: pl.DataFrame, oracle: Oracle) -> None:
    for row in found.iter_rows(named=True):
        entity = tuple(row[name] for name in VIEW.entity_names)
        expected = oracle.values(entity, row[AS_OF])
        assert {name: row[name] for name in expected} == expected, (entity, row[AS_OF])


@settings(max_examples=1000, deadline=None)
@given(trips, closings, closings, st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 2), moments)))
def test_any_point_equals_brute_force(rows: list, ends: list, losses: list, asked: list) -> None:
    frames = frames_of(rows, ends, losses)
    points = pl.DataFrame(asked, {"city": pl.String, "line": pl.Int64, AS_OF: UTC_TIME}, orient="row")
    found = values_at(VIEW, frames, points)
    assert found.select("city", "line", AS_OF).equals(points)
    assert_equal(found, Oracle(VIEW, frames))


@settings(max_examples=150, deadline=None)
@given(trips, closings, closings)
def test_change_log_holds_the_value_at_every_hour(rows: list, ends: list, losses: list) -> None:
    """Joining the newest row of the log gives the oracle's value at every grid step."""
    frames = frames_of(rows, ends, losses)
    end = START + 48 * HOUR
    log = feature_rows(VIEW, frames, START - 24 * HOUR, end, HOUR)
    entities = pl.DataFrame({"city": ["a", "b"]}).join(pl.DataFrame({"line": [1, 2]}), how="cross")
    hours = pl.datetime_range(START - 24 * HOUR, end, "1h", closed="left", eager=True, time_unit="us")
    grid = entities.join(hours.alias(AS_OF).to_frame(), how="cross").sort(AS_OF)
    joined = grid.join_asof(log.sort(AS_OF), on=AS_OF, by=["city", "line"], check_sortedness=False)
    joined = joined.with_columns(
        pl.col(name).fill_null(value) for name, value in VIEW.empty().items() if value is not None
    )
    assert_equal(joined, Oracle(VIEW, frames))


@settings(max_examples=200, deadline=None)
@given(trips, closings, moments)
def test_rows_known_later_change_no_earlier_value(rows: list, ends: list, moment: datetime) -> None:
    frames = frames_of(rows, ends, [])
    known = {name: frame.filter(pl.col("known_at") <= moment) for name, frame in frames.items()}
    points = pl.DataFrame({"city": ["a", "b"], "line": [1, 2], AS_OF: [moment, moment]}).cast({AS_OF: UTC_TIME})
    assert values_at(VIEW, frames, points).equals(values_at(VIEW, known, points))


AS_KNOWN = replace(
    VIEW, time="known_at", features=tuple(feature for feature in VIEW.features if not isinstance(feature, Active))
)


@pytest.mark.parametrize("view", [VIEW, AS_KNOWN])
@settings(max_examples=20, deadline=None)
@given(rows=trips, ends=closings)
def test_change_log_is_the_same_hour_by_hour(view: FeatureView, rows: list, ends: list) -> None:
    frames = frames_of(rows, ends, [])
    log = feature_rows(view, frames, START, START + 18 * HOUR, HOUR)
    hourly = [feature_rows(view, frames, START + h * HOUR, START + (h + 1) * HOUR, HOUR) for h in range(18)]
    assert log.equals(pl.concat(hourly).sort("city", "line", AS_OF))
    points = log.select("city", "line", AS_OF)
    assert log.equals(values_at(view, frames, points))


def test_many_entities_over_a_long_range_do_not_overflow() -> None:
    """Entities times microseconds of a year exceed 64 bits; the packed keys must not."""
    count = 400_000
    days = pl.Series(range(count)) % 365
    rows = pl.DataFrame({"trip": range(count), "days": days}).with_columns(
        (pl.lit(START) + pl.duration(days="days")).cast(UTC_TIME).alias("known_at")
    )
    view = FeatureView(
        name="one", source="trips", entities=(Entity(name="trip", dtype="int64"),), features=(Latest("days", "int64"),),
        description="The day of each of many trips.",
    )  # fmt: skip
    found = feature_rows(view, {"trips": rows}, START, START + timedelta(days=366), HOUR)
    assert found.height == count
    assert found.sort("trip")["days"].equals(days.alias("days"))
