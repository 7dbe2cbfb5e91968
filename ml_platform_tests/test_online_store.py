"""The online store: Feast's own bytes, newest wins, also with several writers at once; SQLite and Redis alike."""

import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.spec import DeclarationError, UnknownName, Window
from ml_platform.stores.feast_bytes import column_encoder, decode_value, encode_value, entity_key_encoder, micros
from ml_platform.stores.online import Online, OnlineStore, online_store
from ml_platform.stores.online_decode import Status
from ml_platform_tests.online_world import (
    BOTH,
    CITY,
    HOUR,
    PASSING,
    city_rows,
    opened,
    whole_steps,
)
from ml_platform_tests.online_writer import LINES, MOMENTS, NOON, VIEW, rows, write_all

PRESENT, NULL, NOT_FOUND, EXPIRED = Status
TICK = timedelta(microseconds=1)


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Online]:
    with opened(request.param, tmp_path) as (address, project):
        yield online_store(address, project)


@given(st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False))
def test_values_come_back_to_the_bit(value: float | int | None) -> None:
    found = decode_value(encode_value(value))
    assert found == value
    assert type(found) is type(value)


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)) | st.lists(st.none() | st.floats()))
def test_a_column_is_encoded_as_its_values_are(values: list[float | int | None]) -> None:
    assert column_encoder()(pl.Series(values)) == [encode_value(value) for value in values]


def test_reads_what_was_published_and_nothing_else(store: Online) -> None:
    assert store.read(VIEW, [(1, "a")]) == [{"wait": None, "trips": None}]
    assert store.publish(VIEW, rows((1, "a", NOON, 0.1, 3), (2, "a", NOON, None, 0)), NOON) == 2
    found = store.read(VIEW, [(2, "a"), (1, "a"), (1, "b"), (None, "a"), (1, "a")])
    nothing = {"wait": None, "trips": None}
    assert found == [{"wait": None, "trips": 0}, {"wait": 0.1, "trips": 3}, nothing, nothing, {"wait": 0.1, "trips": 3}]


def test_an_older_value_never_replaces_a_newer_one(store: Online) -> None:
    assert store.publish(VIEW, rows((1, "a", NOON, 2.0, 2), (1, "a", NOON + HOUR, 3.0, 3)), NOON) == 1
    assert store.publish(VIEW, rows((1, "a", NOON + HOUR - TICK, 1.0, 1)), NOON + 2 * HOUR) == 0
    assert store.read(VIEW, [(1, "a")]) == [{"wait": 3.0, "trips": 3}]


def test_of_the_same_moment_the_later_published_wins(store: Online) -> None:
    for published_at, trips in ((NOON, 1), (NOON + TICK, 2), (NOON, 3)):
        store.publish(VIEW, rows((1, "a", NOON, None, trips)), published_at)
    assert store.read(VIEW, [(1, "a")]) == [{"wait": None, "trips": 2}]
    assert store.publish(VIEW, rows((1, "a", NOON, None, 4)), NOON + TICK) == 1
    assert store.read(VIEW, [(1, "a")]) == [{"wait": None, "trips": 4}]


def test_moments_before_1970_are_older_than_those_after(store: Online) -> None:
    years = [(year, NOON.replace(year=year)) for year in (1966, 1965, 1969, 1971, 1968)]
    written = [store.publish(VIEW, rows((1, "a", moment, None, year)), NOON) for year, moment in years]
    assert written == [1, 0, 1, 1, 0]
    assert store.read(VIEW, [(1, "a")]) == [{"wait": None, "trips": 1971}]


def test_entities_that_come_and_go_are_not_kept(store: Online) -> None:
    store.publish(PASSING, rows((1, "a", NOON, 1.0, 1), (2, "a", NOON - 3 * HOUR, 1.0, 1)), NOON)
    assert [found["trips"] for found in store.read(PASSING, [(1, "a"), (2, "a")])] == [1, None]
    store.publish(PASSING, rows((3, "a", NOON + 3 * HOUR, 1.0, 1)), NOON + 3 * HOUR)
    assert [found["trips"] for found in store.read(PASSING, [(1, "a"), (3, "a")])] == [None, 1]


def test_a_plan_reads_all_views_and_says_what_each_value_is(store: Online) -> None:
    store.publish(VIEW, rows((1, "a", NOON, 0.5, 3), (2, "a", NOON, None, 4)), NOON)
    store.publish(PASSING, rows((1, "a", NOON, 1.5, 7)), NOON)
    store.publish(CITY, city_rows(("a", NOON, 0.25, None, -1), ("b", NOON - HOUR, 1.0, 2.0, 5)), NOON)
    plan = store.plan([(VIEW, ("wait", "trips")), (CITY, ("events", "snow")), (PASSING, ("trips",))])
    assert plan.features == (
        ("line_state", "wait"),
        ("line_state", "trips"),
        ("city_state", "events"),
        ("city_state", "snow"),
        ("line_today", "trips"),
    )
    asked = [
        {"line": 1, "city": "a", "else": 0},
        {"line": 2, "city": "a"},
        {"line": 1, "city": "b"},
        {"line": None, "city": "a"},
        {"line": 1, "city": "a"},
    ]
    found = plan.read(asked, NOON + 2 * HOUR)
    first = (0.5, 3, -1, None, 7)
    unknown_line = (None, None, -1, None, None)
    assert found.values == [first, (None, 4, -1, None, None), (None, None, 5, 2.0, None), unknown_line, first]
    whole = (PRESENT, PRESENT, PRESENT, NULL, PRESENT)
    assert found.statuses == [
        whole,
        (NULL, PRESENT, PRESENT, NULL, NOT_FOUND),
        (NOT_FOUND, NOT_FOUND, PRESENT, PRESENT, NOT_FOUND),
        (NOT_FOUND, NOT_FOUND, PRESENT, NULL, NOT_FOUND),
        whole,
    ]
    assert plan.read([], NOON).values == []


def test_a_value_past_its_time_is_missing_and_said_to_be(store: Online) -> None:
    store.publish(PASSING, rows((1, "a", NOON + TICK, 1.5, 7)), NOON)
    plan = store.plan([(PASSING, ("trips", "wait"))])
    row = [{"line": 1, "city": "a"}]
    at_last = plan.read(row, NOON + 2 * HOUR + TICK)
    assert (at_last.values, at_last.statuses) == ([(7, 1.5)], [(PRESENT, PRESENT)])
    after = plan.read(row, NOON + 2 * HOUR + 2 * TICK)
    assert (after.values, after.statuses) == ([(None, None)], [(EXPIRED, EXPIRED)])
    assert plan.read(row, None).values == [(7, 1.5)]


def test_a_plan_may_fill_with_the_values_of_an_empty_view(store: Online) -> None:
    counted = replace(
        VIEW, name="counted", features=(Window("trip", "count", (HOUR,)), Window("wait", "mean", (HOUR,)))
    )
    found = store.plan([(counted, tuple(counted.schema()))], fill=True).read(
        [{"line": 1, "city": "a"}, {"line": 1, "city": None}], NOON
    )
    assert found.values == [(0, None), (None, None)]
    assert found.statuses == [(NOT_FOUND, NOT_FOUND)] * 2


def test_a_feature_that_was_added_since_is_not_found(store: Online) -> None:
    store.publish(replace(VIEW, features=VIEW.features[:1]), rows((1, "a", NOON, 0.5, 3)), NOON)
    found = store.plan([(VIEW, ("wait", "trips"))]).read([{"line": 1, "city": "a"}], NOON)
    assert (found.values, found.statuses) == ([(None, 3)], [(NOT_FOUND, PRESENT)])
    # An older row may not fill the gap: that would be half of one row and half of another.
    store.publish(VIEW, rows((1, "a", NOON - HOUR, 0.5, 2)), NOON)
    assert store.read(VIEW, [(1, "a")]) == [{"wait": None, "trips": 3}]


def test_what_cannot_be_planned_or_asked_is_refused_with_a_cure(store: Online) -> None:
    with pytest.raises(UnknownName, match="feature of line_state named 'wiat'; did you mean wait"):
        store.plan([(VIEW, ("wiat",))])
    with pytest.raises(DeclarationError, match="name each feature wanted once"):
        store.plan([(VIEW, ("wait", "wait"))])
    plan = store.plan([(VIEW, ("wait",))])
    with pytest.raises(DeclarationError, match="row 1 lacks the entity 'city', by which line_state is asked"):
        plan.read([{"line": 1, "city": "a"}, {"line": 1}], NOON)


def test_threads_share_a_store_and_its_plans(store: Online) -> None:
    store.publish(VIEW, rows(*((line, "a", NOON, line / 7, line) for line in range(50))), NOON)
    plan = store.plan([(VIEW, ("trips",))])
    wrong: list[object] = []

    def read(seed: int) -> None:
        for step in range(100):
            lines = [(seed * 31 + step * n) % 50 for n in range(5)]
            found = plan.read([{"line": line, "city": "a"} for line in lines], NOON)
            wrong.extend(value for value, line in zip(found.values, lines, strict=True) if value != (line,))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert pickle.loads(pickle.dumps(store)).read(VIEW, [(7, "a")]) == [{"wait": 1.0, "trips": 7}]


# One sequence of publishes after the other on the same store, each on a line of its own.
lines = count()
moments = st.sampled_from([NOON, NOON + TICK, NOON + timedelta(seconds=1), NOON + HOUR]) | st.integers(
    -(2 * 10**15), 2 * 10**15
).map(lambda since: NOON + since * TICK)
published = st.lists(
    st.tuples(
        st.sampled_from([NOON, NOON + TICK, NOON + HOUR]),
        st.lists(
            st.tuples(moments, st.none() | st.floats(allow_nan=False), st.none() | st.integers(-9, 9)), max_size=4
        ),
    ),
    max_size=6,
)


@pytest.mark.parametrize("kind", BOTH)
def test_any_sequence_of_publishes_ends_in_the_newest_row(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as (address, project):
        store = online_store(address, project)

        @settings(max_examples=100, deadline=None)
        @given(published)
        def ends_in_the_newest(
            publishes: list[tuple[datetime, list[tuple[datetime, float | None, int | None]]]],
        ) -> None:
            line = next(lines)
            newest: tuple[datetime, datetime] | None = None
            expected: dict[str, float | int | None] = {"trips": None, "wait": None}
            for published_at, values in [*publishes, *publishes[::2], *publishes[::-1]]:
                store.publish(VIEW, rows(*((line, "a", *value) for value in values)), published_at)
                for moment, wait, trips in values:
                    if newest is None or (moment, published_at) >= newest:
                        newest, expected = (moment, published_at), {"trips": trips, "wait": wait}
                assert store.read(VIEW, [(line, "a")]) == [expected]

        ends_in_the_newest()


@pytest.mark.parametrize("kind", BOTH)
def test_writers_that_are_killed_in_the_middle_leave_whole_rows_and_the_newest(kind: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")

    def begin(seed: int, until_killed: bool) -> multiprocessing.process.BaseProcess:
        writer = context.Process(target=write_all, args=(address, project, seed, begun, until_killed))
        writer.start()
        return writer

    with opened(kind, tmp_path) as (address, project):
        store = online_store(address, project)
        store.publish(VIEW, rows(), NOON)
        heard, begun = context.Pipe(duplex=False)
        writers = {seed: begin(seed, until_killed=seed < 2) for seed in range(3)}
        seen = [-1] * LINES
        for _ in writers:
            assert heard.poll(60)
            heard.recv()
        time.sleep(0.05)
        for seed in (0, 1):
            os.kill(writers[seed].pid or 0, signal.SIGKILL)
            writers[seed].join()
            assert writers[seed].exitcode == -signal.SIGKILL
            writers[seed] = begin(seed, until_killed=False)  # the retry after the kill
        while any(writer.is_alive() for writer in writers.values()):
            found = whole_steps(store)
            assert all(now >= before for now, before in zip(found, seen, strict=True)), "an older row came back"
            seen = found
        assert [writer.exitcode for writer in writers.values()] == [0, 0, 0]
        assert whole_steps(store) == [MOMENTS - 1] * LINES


def test_a_file_of_before_keeps_its_rows(tmp_path: Path) -> None:
    """Made by Feast, or before there were columns of our own: whole seconds, no more."""
    store = OnlineStore(tmp_path / "online.db", "demo")
    with sqlite3.connect(store.path) as db:
        db.execute(
            "CREATE TABLE demo_line_today (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, "
            "vector_value BLOB, event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
        )
        key, second = entity_key_encoder(("line", "city"))((1, "a")), micros(NOON) // 1_000_000
        for name, value in (("wait", 0.5), ("trips", 3)):
            line = (key, name, encode_value(value), second, None)
            db.execute("INSERT INTO demo_line_today VALUES (?, ?, ?, NULL, NULL, ?, ?)", line)
    plan = store.plan([(PASSING, ("trips", "wait"))])
    assert plan.read([{"line": 1, "city": "a"}], NOON + 2 * HOUR).values == [(3, 0.5)]
    assert plan.read([{"line": 1, "city": "a"}], NOON + 2 * HOUR + TICK).statuses == [(EXPIRED, EXPIRED)]
    assert store.publish(PASSING, rows((1, "a", NOON - TICK, 0.1, 1)), NOON) == 0
    assert store.publish(PASSING, rows((1, "a", NOON, 0.1, 4)), NOON) == 1
    assert plan.read([{"line": 1, "city": "a"}], NOON).values == [(4, 0.1)]


READER = """
import sys
import pandas as pd
from feast import FeatureStore
store = FeatureStore(sys.argv[1])
answer = store.get_online_features(
    features=["origin_departures:dep_delay_mean_3h", "flight_number_arrivals:late_share_28d"],
    entity_rows=[{"origin": "JFK", "carrier": "B6", "flight": 15}, {"origin": "XXX", "carrier": "B6", "flight": 1}],
).to_dict()
print(answer["dep_delay_mean_3h"], answer["late_share_28d"])
hours = pd.to_datetime(["2024-05-01T11:59Z", "2024-05-01T12:00Z", "2024-05-03T00:00Z"])
asked = pd.DataFrame({"origin": "JFK", "event_timestamp": hours})
found = store.get_historical_features(asked, ["origin_departures:dep_delay_mean_3h"]).to_arrow()
print(found["dep_delay_mean_3h"].to_pylist())
"""


def test_feast_applies_the_repository_and_reads_what_we_publish_and_what_we_store(tmp_path: Path) -> None:
    from ml_platform.features.refresh import dated
    from ml_platform.features.registry import apply, repository
    from ml_platform.resources.profiles import Profile
    from ml_platform.resources.projects import load_project
    from ml_platform.stores.delta import Lake

    profile = Profile.at(tmp_path)
    project = load_project(profile.project)
    said = apply(project, profile)
    assert all(view in said for view in project.all_views)
    store = OnlineStore(profile.online_path, project.name)
    for view, entity in (
        ("origin_departures", {"origin": "JFK"}),
        ("flight_number_arrivals", {"carrier": "B6", "flight": 15}),
    ):
        values = {name: (3 if kind == "int64" else 0.1) for name, kind in project.views[view].schema().items()}
        frame = pl.DataFrame([{**entity, "as_of": NOON, **values}]).cast({"as_of": pl.Datetime("us", "UTC")})
        store.publish(project.views[view], frame, NOON)
        Lake(profile.lake).replace(f"features/{view}", dated(frame, project.timezone), [NOON.date()])
    done = subprocess.run(
        [sys.executable, "-c", READER, str(repository(project))],
        env={**os.environ, "ML_PLATFORM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-2:] == ["[0.1, None] [0.1, None]", "[None, 0.1, 0.1]"]
