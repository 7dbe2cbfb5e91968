"""Corrections against brute force: the newest version of a fact that is known holds, and no value of before changes."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.features.follow import within_reach
from ml_platform.features.live import LiveViews
from ml_platform.features.oracle import Oracle
from ml_platform.features.skew import compare
from ml_platform.features.windows import AS_OF, feature_rows, values_at
from ml_platform.spec import KNOWN_AT, Active, FeatureView
from ml_platform.stores.tiles import SqliteTiles
from ml_platform_tests.test_live import LIVE, asked_at, assert_live_equals_oracle, histories, new_tiles
from ml_platform_tests.test_windows import HOUR, START, UTC_TIME, VIEW, closings, frames_of, moments

KEYED = replace(VIEW, key=("trip",))
CONDITION = replace(KEYED, where=pl.col("minutes") > 0)  # a correction can fall out of it, or come into it
AS_KNOWN = replace(CONDITION, time=KNOWN_AT, features=tuple(f for f in VIEW.features if not isinstance(f, Active)))
VIEWS = [KEYED, CONDITION, AS_KNOWN]

versions = st.lists(
    st.fixed_dictionaries(
        {
            "trip": st.integers(0, 5),  # few, so that most are corrected, some of them often
            "city": st.sampled_from(["a", "b", None]),
            "line": st.integers(1, 2),
            "at": moments,
            "wait": st.integers(-8, 30),  # with times of few quarters: ties, and plans known long before
            "minutes": st.none() | st.integers(-20, 90),
            "fare": st.none() | st.floats(-100, 1000, allow_nan=False),
            "note": st.sampled_from(["x", "y", "z", None]),
        }
    ),
    max_size=16,
)
ENTITIES = [(city, line) for city in "ab" for line in (1, 2)]


def expected(view: FeatureView, frames: dict[str, pl.DataFrame], points: pl.DataFrame) -> list[dict]:
    oracle = Oracle(view, frames)
    return [{**row, **oracle.values((row["city"], row["line"]), row[AS_OF])} for row in points.iter_rows(named=True)]


def points_of(asked: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(asked, {"city": pl.String, "line": pl.Int64, AS_OF: UTC_TIME}, orient="row")


@settings(max_examples=150, deadline=None)
@given(
    view=st.sampled_from(VIEWS),
    rows=versions,
    ends=closings,
    asked=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2), moments)),
)
def test_any_point_equals_brute_force(view: FeatureView, rows: list, ends: list, asked: list) -> None:
    frames = frames_of(rows, ends, [])
    points = points_of(asked)
    assert values_at(view, frames, points).rows(named=True) == expected(view, frames, points)


@settings(max_examples=20, deadline=None)
@given(view=st.sampled_from(VIEWS), rows=versions, ends=closings)
def test_change_log_holds_the_value_at_every_hour(view: FeatureView, rows: list, ends: list) -> None:
    """Joining the newest row of the log gives brute force's value at every grid step, made at once or in pieces."""
    frames, start, end = frames_of(rows, ends, []), START - 3 * HOUR, START + 27 * HOUR
    log = feature_rows(view, frames, start, end, HOUR)
    hours = pl.datetime_range(start, end, "1h", closed="left", eager=True, time_unit="us")
    grid = points_of([(*entity, at) for at in hours for entity in ENTITIES])
    joined = grid.join_asof(log.sort(AS_OF), on=AS_OF, by=["city", "line"], check_sortedness=False)
    joined = joined.with_columns(pl.col(name).fill_null(value) for name, value in view.empty().items() if value == 0)
    assert joined.rows(named=True) == expected(view, frames, grid)
    pieces = [feature_rows(view, frames, at, at + 5 * HOUR, HOUR) for at in hours[::5]]
    assert log.equals(pl.concat(pieces).sort("city", "line", AS_OF))


@settings(max_examples=25, deadline=None)
@given(view=st.sampled_from(VIEWS), rows=versions, ends=closings, moment=moments)
def test_a_correction_changes_no_value_of_before_it_was_known(
    view: FeatureView, rows: list, ends: list, moment: object
) -> None:
    frames = frames_of(rows, ends, [])
    known = {name: frame.filter(pl.col(KNOWN_AT) <= moment) for name, frame in frames.items()}
    points = points_of([(*entity, moment) for entity in ENTITIES])
    assert values_at(view, frames, points).equals(values_at(view, known, points))


@settings(max_examples=25, deadline=None)
@given(rows=versions, hours=st.integers(0, 20))
def test_no_value_depends_on_rows_known_before_its_windows(rows: list, hours: int) -> None:
    """So a month of history gives the values that a year gives, though a correction may be all that it holds."""
    frames, at = frames_of(rows, [], []), START + hours * HOUR
    view = replace(AS_KNOWN, features=tuple(f for f in AS_KNOWN.features if hasattr(f, "over")))
    recent = {"trips": frames["trips"].filter(pl.col(KNOWN_AT) > at - view.lookback)}
    points = points_of([(*entity, at + later) for entity in ENTITIES for later in (timedelta(0), 3 * HOUR)])
    assert values_at(view, frames, points).equals(values_at(view, recent, points))


LIVE_VIEWS = [replace(view, features=LIVE.features) for view in (KEYED, CONDITION)] + [
    replace(CONDITION, name="as_known", time=KNOWN_AT, features=LIVE.features, entities=VIEW.entities[::-1])
]


def follow(views: list[FeatureView], path: Path, frames: dict, deliveries: list, restart: int = -1) -> None:
    live = LiveViews(views, SqliteTiles(path))
    for n, (table, numbers) in enumerate(deliveries):
        if n == restart:
            live = LiveViews(views, SqliteTiles(path))
        live.apply(table, frames[table][numbers])
    assert sum(live.apply(table, frame) for table, frame in frames.items()) == 0  # again it changes nothing


@settings(max_examples=100, deadline=None)
@given(view=st.sampled_from(LIVE_VIEWS[:2]), history=histories(versions), asked=asked_at, restart=st.integers(0, 40))
def test_any_delivery_gives_the_value_of_the_raw_rows(
    view: FeatureView, history: tuple, asked: list, restart: int
) -> None:
    with new_tiles() as path:
        follow([view], path, *history, restart)
        assert_live_equals_oracle(SqliteTiles(path), history[0], asked, view)


@settings(max_examples=40, deadline=None)
@given(history=histories(versions), asked=asked_at, first=st.booleans())
def test_views_share_what_is_remembered_of_a_table(history: tuple, asked: list, first: bool) -> None:
    """Whether they follow it together or, as days are closed, one after the other."""
    views = [LIVE_VIEWS[0], LIVE_VIEWS[2]]
    with new_tiles() as path:
        follow(views[:1] if first else views, path, *history)
        for view in views:
            frames = within_reach(view, history[0], START - timedelta(days=9))
            live = LiveViews([view], SqliteTiles(path))
            for table, frame in frames.items():
                live.apply(table, frame)
        assert_live_equals_oracle(SqliteTiles(path), history[0], asked, views[0])
        live, oracle = LiveViews(views[1:], SqliteTiles(path)), Oracle(views[1], history[0])
        for city, line, at, _ in asked:
            assert live.values([("as_known", (line, city))], at) == [oracle.values((line, city), at)]


def fares(view: FeatureView, frames: dict[str, pl.DataFrame], city: str, hour: float) -> tuple:
    (row,) = values_at(view, frames, points_of([(city, 1, START + hour * HOUR)])).rows(named=True)
    return row["fare_count_5h"], row["fare_sum_5h"], row["fare_max_5h"], row["newest"], row["open_3h"]


def test_a_corrected_fact_counts_once_and_where_it_was_moved_to() -> None:
    first = {"trip": 7, "city": "a", "line": 1, "at": START, "wait": 0, "minutes": 5, "fare": 30.0, "note": "x"}
    other = {**first, "trip": 8, "fare": 10.0, "minutes": 1}
    dearer = {**first, "fare": 50.0, "wait": 4}  # known an hour later
    moved = {**dearer, "city": "b", "wait": 8}
    frames = frames_of([first, other, dearer, moved], [], [])
    assert fares(KEYED, frames, "a", 0.75) == (2, 40.0, 30.0, 1, 2)
    assert fares(KEYED, frames, "a", 1) == (2, 60.0, 50.0, 5, 2)
    assert fares(KEYED, frames, "a", 2) == (1, 10.0, 10.0, 1, 1)
    assert (fares(KEYED, frames, "b", 1.75), fares(KEYED, frames, "b", 2)) == (
        (0, 0.0, None, None, 0),
        (1, 50.0, 50.0, 5, 1),
    )
    retracted = frames_of([first, other, {**first, "minutes": -1, "wait": 4}], [], [])
    assert fares(CONDITION, retracted, "a", 1) == (1, 10.0, 10.0, 1, 1)


def test_as_of_before_a_correction_a_whole_tile_holds_what_it_held(tmp_path: Path) -> None:
    """A window of nine days reads a tile of eight hours as a whole, unless somebody asks of before an end in it."""
    first = {"trip": 7, "city": "a", "line": 1, "at": START, "wait": 0, "minutes": 5, "fare": 30.0, "note": "x"}
    rows = [first, {**first, "trip": 8, "fare": 10.0}, {**first, "fare": 50.0, "wait": 4 * 30}]
    frames = frames_of(rows, [], [])
    live = LiveViews([LIVE_VIEWS[0]], SqliteTiles(tmp_path / "live.db"))
    for table, frame in frames.items():
        live.apply(table, frame)

    def mean(hour: float) -> object:
        return live.values([("trips", ("a", 1))], START + hour * HOUR)[0]["long_fare_9d"]

    assert [mean(hour) for hour in (29.9, 30, 60)] == [20.0, 30.0, 30.0]


def test_skew_sees_corrections_that_name_another_entity_or_another_time() -> None:
    """Of all rows only those in reach are recomputed from; what superseded them must be among them."""
    far = {"trip": 1, "city": "a", "line": 1, "at": START + 90 * HOUR, "minutes": 5, "fare": 30.0, "note": "x"}
    rows = [
        {**far, "wait": -4 * 80},  # planned ten hours after START, moved soon to another day
        {**far, "at": START + 12 * HOUR, "wait": -4},
        {**far, "trip": 2, "at": START + 89 * HOUR, "wait": 0},
        {**far, "trip": 2, "city": "b", "at": START + 89 * HOUR, "wait": 2},
        {**far, "trip": 3, "at": START + 89 * HOUR, "wait": 1, "fare": 7.0},
    ]
    frames, at = frames_of(rows, [], []), START + 90 * HOUR
    live = replace(KEYED, features=LIVE.features[:20])
    names = [f"{live.name}__fare_count_5h", f"{live.name}__fare_sum_5h"]
    served = pl.DataFrame(
        {
            "prediction_id": ["p"],
            "asked_at": [at],
            "as_of": [at],
            "feature_names": [names],
            "features": [[1.0, 7.0]],
            "entities": ['{"city": "a", "line": 1}'],
        }
    )
    compared, differing = compare(served, {live.name: live}, frames)
    assert (compared, differing.rows()) == (2, [])
