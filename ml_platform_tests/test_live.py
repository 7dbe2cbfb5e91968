"""Live windows against brute force: whatever the order, however often delivered, whenever asked."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.features.follow import within_reach
from ml_platform.features.live import LiveViews
from ml_platform.features.oracle import Oracle
from ml_platform.features.windows import AS_OF, values_at
from ml_platform.spec import KNOWN_AT, FeatureView, Latest, MissingHistory, Window
from ml_platform.stores.tiles import SqliteTiles, TileStore
from ml_platform.training.training_set import join_features, question_rows
from ml_platform_tests.test_training import BY_LINE, TASK
from ml_platform_tests.test_training import moments as hours
from ml_platform_tests.test_windows import HOUR, START, UTC_TIME, VIEW, closings, frames_of, moments, trips

DAYS = (HOUR, timedelta(days=3), timedelta(days=9))  # tiles of eight hours
LIVE = replace(
    VIEW,
    key=("trip",),
    features=(
        *(feature for feature in VIEW.features if not isinstance(feature, Latest)),
        Window("fare", "mean", over=DAYS, name="long_fare"),
        Window("minutes", "last", over=DAYS, name="long_minutes"),
    ),
)


@st.composite
def histories(
    draw: st.DrawFn, listed: st.SearchStrategy[list] = trips
) -> tuple[dict[str, pl.DataFrame], list[tuple[str, list[int]]]]:
    """Raw tables, and deliveries (table, row numbers) that bring every row at least once, in any order."""
    frames = frames_of(draw(listed), draw(closings), draw(closings))
    rows = [(table, n) for table, frame in frames.items() for n in range(frame.height)]
    again = draw(st.lists(st.sampled_from(rows), max_size=10)) if rows else []
    order = draw(st.permutations([*rows, *again]))
    deliveries: list[tuple[str, list[int]]] = []
    for table, n in order:
        if deliveries and deliveries[-1][0] == table and draw(st.booleans()):
            deliveries[-1][1].append(n)
        else:
            deliveries.append((table, [n]))
    return frames, deliveries


asked_at = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(1, 2), moments, st.integers(-1, 1)), max_size=8
)


@contextmanager
def new_tiles() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "live.db"


def assert_live_equals_oracle(
    tiles: TileStore, frames: dict[str, pl.DataFrame], asked: list, view: FeatureView = LIVE
) -> None:
    live, oracle = LiveViews([view], tiles), Oracle(view, frames)
    for city, line, moment, tick in asked:
        at = moment + timedelta(microseconds=tick)  # just before, on and just after an edge
        (values,) = live.values([(view.name, (city, line))], at)
        assert values == oracle.values((city, line), at), (city, line, at)


@settings(max_examples=500, deadline=None)
@given(histories(), asked_at, st.integers(0, 40))
def test_any_delivery_gives_the_value_of_the_raw_rows(history: tuple, asked: list, restart: int) -> None:
    frames, deliveries = history
    with new_tiles() as path:
        live = LiveViews([LIVE], SqliteTiles(path))
        for n, (table, numbers) in enumerate(deliveries):
            if n == restart:
                live = LiveViews([LIVE], SqliteTiles(path))
            live.apply(table, frames[table][numbers])
        assert_live_equals_oracle(SqliteTiles(path), frames, asked)
        again = sum(live.apply(table, frame) for table, frame in frames.items())
        assert again == 0  # a second delivery changes no tile


@settings(max_examples=100, deadline=None)
@given(trips, closings, asked_at, st.integers(0, 12))
def test_live_and_batch_give_the_same_bits(rows: list, ends: list, asked: list, cut: int) -> None:
    """Also where rows are evaluated together and written in two parts."""
    frames = frames_of(rows, ends, [])
    points = pl.DataFrame(
        [(city, line, at) for city, line, at, _ in asked if city],
        {"city": pl.String, "line": pl.Int64, AS_OF: UTC_TIME},
        orient="row",
    )
    batch = values_at(LIVE, frames, points).drop("city", "line", AS_OF).rows(named=True)
    with new_tiles() as path:
        live = LiveViews([LIVE], SqliteTiles(path))
        for table, frame in frames.items():
            evaluated = live.evaluated(table, frame)
            live.write(evaluated.part(0, cut))
            live.write(evaluated.part(cut, frame.height))
        found = [live.values([(LIVE.name, row[:2])], row[2])[0] for row in points.iter_rows()]
    assert found == batch


@settings(max_examples=150, deadline=None)
@given(trips, closings, closings, asked_at)
def test_rows_out_of_reach_change_no_value_that_can_be_asked(rows: list, ends: list, losses: list, asked: list) -> None:
    frames = frames_of(rows, ends, losses)
    since = START + timedelta(hours=15)
    short = tuple(f for f in LIVE.features if not (f.name or "").startswith("long_"))  # windows of up to five hours
    view = replace(LIVE, features=short)
    with new_tiles() as path:
        live = LiveViews([view], SqliteTiles(path))
        for table, frame in within_reach(view, frames, since).items():
            live.apply(table, frame, since=since)
        oracle = Oracle(view, frames)
        for city, line, at, _ in asked:
            if at >= since:
                (values,) = live.values([(view.name, (city, line))], at)
                assert values == oracle.values((city, line), at)


def test_a_window_that_has_emptied_says_so(tmp_path: Path) -> None:
    frames = frames_of(
        [{"city": "a", "line": 1, "at": START, "wait": 0, "minutes": 7, "fare": 1.5, "note": "x"}], [], []
    )
    live = LiveViews([LIVE], SqliteTiles(tmp_path / "live.db"))
    live.apply("trips", frames["trips"])
    (just, gone) = (
        live.values([(LIVE.name, ("a", 1))], START + span)[0] for span in (HOUR - timedelta(microseconds=1), HOUR)
    )
    assert (just["minutes_count_1h"], just["minutes_mean_1h"], just["note_distinct_1h"]) == (1, 7.0, 1)
    assert (gone["minutes_count_1h"], gone["minutes_mean_1h"], gone["minutes_sum_1h"]) == (0, None, 0.0)


def test_old_tiles_expire_and_leave_what_is_in_reach(tmp_path: Path) -> None:
    rows = [
        {"city": "a", "line": 1, "at": START + n * timedelta(days=1), "wait": 0, "minutes": n, "fare": 1.0, "note": "x"}
        for n in range(30)
    ]
    frames = frames_of(rows, [], [])
    tiles = SqliteTiles(tmp_path / "live.db")
    live = LiveViews([LIVE], tiles)
    live.apply("trips", frames["trips"])
    now = START + timedelta(days=29, hours=1)
    before = live.values([(LIVE.name, ("a", 1))], now)
    live.keep_from(now)
    live.keep_from(now - timedelta(days=5))  # an older day made again: what was dropped stays dropped
    assert live.values([(LIVE.name, ("a", 1))], now) == before
    with pytest.raises(MissingHistory, match=r"kept as of 2024-03-30 01:00:00.* on, and 2024-03-04T.* lies before"):
        live.values([(LIVE.name, ("a", 1))], START + timedelta(days=3))


def test_without_a_grid_a_question_is_answered_as_of_its_own_moment() -> None:
    trips = pl.DataFrame({"trip": ["t"], "leaves": hours([5.99]), "line": ["a"], "stop": [1]})
    rows = question_rows(replace(TASK, grid=timedelta(0)), trips)
    assert rows[AS_OF].to_list() == hours([3.99]).to_list()
    known = pl.DataFrame({"line": ["a", "a"], KNOWN_AT: hours([3.99, 3.9901]), "a": [1.0, 2.0], "n": [1, 2]})
    assert join_features(rows, {"lines": known}, [BY_LINE])["by_line__a"].to_list() == [1.0]
