"""Live windows on a real Redis: any delivery, many writers at once, killed consumers, bad messages, Redis away."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.features.live import LiveViews
from ml_platform.features.live_view import micros
from ml_platform.features.oracle import Oracle
from ml_platform.resources.profiles import Profile
from ml_platform.serving.client import Client
from ml_platform.serving.process import running
from ml_platform.spec import KNOWN_AT, DeclarationError, ServiceError, StoreUnavailable
from ml_platform.stores.event_stream import EventStream
from ml_platform.stores.tiles import Change, Wanted
from ml_platform.stores.tiles_redis import RedisTiles
from ml_platform_tests.redis_server import KEEPS, Server
from ml_platform_tests.serving_world import NOON, ROW, said_whole, standard
from ml_platform_tests.stream_world import (
    BATCH,
    DATABASE,
    LIVE,
    NOW,
    as_json,
    child,
    consumer,
    drained,
    empty_place,
    many_frames,
    write,
)
from ml_platform_tests.test_corrections import LIVE_VIEWS, versions
from ml_platform_tests.test_live import LIVE as LONG
from ml_platform_tests.test_live import asked_at, assert_live_equals_oracle, histories
from ml_platform_tests.test_windows import START

pytestmark = pytest.mark.service("redis")
HOST = ("127.0.0.1", 9)  # discard: nobody listens


@pytest.fixture
def place() -> Iterator[tuple[str, str]]:
    with empty_place() as found:
        yield found


@settings(max_examples=120, deadline=None)
@given(histories(), asked_at, st.integers(0, 40))
def test_any_delivery_gives_the_value_of_the_raw_rows(history: tuple, asked: list, restart: int) -> None:
    frames, deliveries = history
    with empty_place() as (url, name):
        live = LiveViews([LONG], RedisTiles(url, name))
        for n, (table, numbers) in enumerate(deliveries):
            if n == restart:
                live = LiveViews([LONG], RedisTiles(url, name))
            live.apply(table, frames[table][numbers])
        assert_live_equals_oracle(RedisTiles(url, name), frames, asked)
        assert sum(live.apply(table, frame) for table, frame in frames.items()) == 0


@settings(max_examples=60, deadline=None)
@given(histories(versions), asked_at, st.integers(0, 40))
def test_any_delivery_of_corrections_gives_the_value_of_the_raw_rows(history: tuple, asked: list, restart: int) -> None:
    frames, deliveries = history
    with empty_place() as (url, name):
        live = LiveViews([LIVE_VIEWS[1]], RedisTiles(url, name))
        for n, (table, numbers) in enumerate(deliveries):
            if n == restart:
                live = LiveViews([LIVE_VIEWS[1]], RedisTiles(url, name))
            live.apply(table, frames[table][numbers])
        assert_live_equals_oracle(RedisTiles(url, name), frames, asked, LIVE_VIEWS[1])
        assert sum(live.apply(table, frame) for table, frame in frames.items()) == 0


def assert_equals_oracle(url: str, name: str, frames: dict[str, pl.DataFrame]) -> None:
    live, oracle = LiveViews([LIVE], RedisTiles(url, name)), Oracle(LIVE, frames)
    keys = [(city, line) for city in ("a", "b") for line in (1, 2)]
    for hours in (0.5, 3, 9.25, 17, 26, 40):
        at = START + timedelta(hours=hours)
        found = live.values([(LIVE.name, key) for key in keys], at)
        assert found == [oracle.values(key, at) for key in keys], at


def test_writers_at_the_same_time_lose_nothing(place: tuple[str, str]) -> None:
    url, name = place
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        written = pool.starmap(write, [(url, name, seed) for seed in range(3)])
    assert min(written) > 0
    frames = many_frames(600, corrected=200)
    assert_equals_oracle(url, name, frames)
    live = LiveViews([LIVE], RedisTiles(url, name))
    assert sum(live.apply(table, frame) for table, frame in frames.items()) == 0


def test_a_change_is_made_again_when_another_writer_was_quicker(place: tuple[str, str]) -> None:
    """The other writes between this one's reading and writing, twice."""
    tiles, other = RedisTiles(*place), RedisTiles(*place)
    seen: list[bytes | None] = []

    def appended(letter: bytes) -> Any:
        return lambda held: (b"", (held or b"") + letter)

    def late(held: bytes | None) -> tuple[bytes, bytes]:
        seen.append(held)
        if len(seen) <= 2:
            other.update([Change("log", b"e", 5, 0, appended(b"o"))])
        return b"whole", (held or b"") + b"L"

    changes = [Change("log", b"e", 5, 0, late), Change("log", b"e", 6, 0, appended(b"x"))]
    assert tiles.update(changes) == 2
    assert seen == [None, b"o", b"oo"]
    (found,) = tiles.read([Wanted("log", b"e", 5, 6, (5, 6))])
    assert (found.events, found.parts) == ({5: b"ooL", 6: b"x"}, {5: b"whole", 6: b""})
    assert tiles.update([Change("log", b"e", 6, 0, appended(b"1")), Change("log", b"e", 6, 0, appended(b"2"))]) == 2
    assert tiles.read([Wanted("log", b"e", 6, 6, (6,))])[0].events == {6: b"x12"}


def test_old_tiles_are_dropped_and_what_is_in_reach_stays(place: tuple[str, str]) -> None:
    frames = many_frames(300)
    tiles = RedisTiles(*place)
    live = LiveViews([LIVE], tiles)
    for table, frame in frames.items():
        live.apply(table, frame)
    with redis.Redis(db=DATABASE) as client:
        (keys,) = [list(client.scan_iter(f"live:{place[1]}:*", count=10_000))]
        assert {client.ttl(key) for key in keys} == {-1}  # a replay's tiles: the clock of Redis says nothing about them
        now = START + timedelta(hours=40)
        before = live.values([(LIVE.name, ("a", 1))], now)
        tiles.prune(micros(now))
        assert live.values([(LIVE.name, ("a", 1))], now) == before
        tiles.prune(micros(now + timedelta(days=30)))
        assert list(client.scan_iter(f"live:{place[1]}*", count=10_000)) == []


def test_tiles_of_the_present_expire_by_themselves(place: tuple[str, str]) -> None:
    """Long after anybody asks for them, and never before a younger one beside them."""
    tiles = RedisTiles(*place)
    soon, later = (micros(datetime.now(UTC) + timedelta(days=days)) for days in (1, 9))
    for tile, until in ((1, soon), (2, later), (3, soon), (4, 0)):
        tiles.update([Change("log", b"e", tile, until, lambda held: (b"p", b"e"))])
    with redis.Redis(db=DATABASE) as client:
        expires = datetime.fromtimestamp(client.expiretime(f"live:{place[1]}:log:e"), UTC)
    assert timedelta(days=9) < expires - datetime.now(UTC) < timedelta(days=9 + 36)
    tiles.prune(soon + 1)
    assert tiles.read([Wanted("log", b"e", 1, 4, ())])[0].parts == {2: b"p"}


# The stream


def send_all(stream: EventStream, frames: dict[str, pl.DataFrame], seed: int = 1) -> None:
    rows = [(table, row) for table, frame in frames.items() for row in as_json(frame)]
    random.Random(seed).shuffle(rows)
    for table, row in rows:
        stream.send(table, [row])


def test_killed_consumers_lose_nothing_and_double_nothing(place: tuple[str, str], tmp_path: Path) -> None:
    url, name = place
    frames, stream = many_frames(200, corrected=50), EventStream(*place)
    send_all(stream, frames)
    sent = stream.waiting()
    for death in ("without", "finish", "update"):
        with child(url, name, tmp_path, death) as process:
            if death == "without":  # at any moment: it may hold a batch or none
                while stream.waiting() > sent - 5 * BATCH:
                    time.sleep(0.001)
                process.kill()
            assert process.wait(20) == -signal.SIGKILL
        if death != "without":  # in the midst of a batch, which it then holds
            with redis.Redis(db=DATABASE) as client:
                assert client.xpending(stream.stream, "live")["pending"] >= 1
    assert 0 < stream.waiting() < sent
    one = drained(consumer(url, name, tmp_path))
    assert 0 < one.counts.applied < sent
    assert [*stream.dead_letters()] == []
    assert_equals_oracle(url, name, frames)


def test_a_second_delivery_changes_nothing(place: tuple[str, str], tmp_path: Path) -> None:
    url, name = place
    frames, stream = many_frames(120), EventStream(*place)
    send_all(stream, frames, seed=2)
    drained(consumer(url, name, tmp_path))
    send_all(stream, frames, seed=3)
    drained(consumer(url, name, tmp_path))
    assert_equals_oracle(url, name, frames)


def test_two_consumers_share_the_stream(place: tuple[str, str], tmp_path: Path) -> None:
    url, name = place
    frames, stream = many_frames(120), EventStream(*place)
    send_all(stream, frames)
    sent = stream.waiting()
    one, other = consumer(url, name, tmp_path), consumer(url, name, tmp_path)
    while stream.waiting():
        one.step()
        other.step()
    assert one.counts.applied + other.counts.applied == sent
    assert min(one.counts.applied, other.counts.applied) > 0
    assert_equals_oracle(url, name, frames)


def test_bad_messages_are_set_aside_with_their_reasons(place: tuple[str, str], tmp_path: Path) -> None:
    url, name = place
    frames, stream = many_frames(20), EventStream(*place)
    good = [json.loads(row) for row in as_json(frames["trips"])]
    bad = [
        ("no key", {**good[0], "trip": None}, "trips, column 'trip': is null"),
        ("no time", {**good[0], "known_at": None}, "column 'known_at': is null"),
        ("future", {**good[0], "known_at": (NOW + timedelta(days=9)).isoformat()}, "'known_at'.*lies outside"),
        ("past", {**good[0], "known_at": "1999-01-01T00:00:00Z"}, "'known_at'.*lies outside"),
        ("no zone", {**good[0], "at": "2024-03-01T00:00:00"}, "column 'at'.*no time zone"),
        ("wrong type", {**good[0], "line": "1"}, "column 'line': '1' is not of the type Int64"),
        ("too large", {**good[0], "line": 2**63}, "column 'line'.*Int64"),
        ("beyond sums", {**good[0], "fare": 1e300}, "column 'fare': '1e.300' is not a number of the type Float64"),
        ("no such column", {**good[0], "tip": 1}, "unknown tip"),
        ("a rule", {**good[0], "minutes": 5000}, "trips: minutes_between_-60_and_1000"),
        ("a list", [1], "is no JSON object"),
    ]
    texts = [(table, json.dumps(row).encode()) for table, row in (("trips", row) for _, row, _ in bad)]
    texts += [("trps", b"{}"), ("trips", b"{"), ("trips", b"\xff"), ("trips", b'{"trip": NaN}')]
    reasons = [reason for *_, reason in bad]
    reasons += ["no table of events named 'trps'; did you mean trips", "is no JSON", "is no JSON", "is no JSON"]
    for number, row in enumerate(as_json(frames["trips"])):
        stream.send("trips", [row])
        if number < len(texts):
            stream.send(texts[number][0], [texts[number][1]])
    with redis.Redis(db=DATABASE) as client:
        client.xadd(stream.stream, {"unheard": "of"})
    one = drained(consumer(url, name, tmp_path))
    assert (one.counts.applied, one.counts.aside) == (20, len(texts) + 1)
    letters = {(letter.table, letter.row): letter.reason for letter in stream.dead_letters()}
    assert len(letters) == len(texts) + 1
    for text, reason in zip(texts, reasons, strict=True):
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(letters[text])
    assert "no table of events named ''" in letters["", b""]
    assert_equals_oracle(url, name, {**frames, "ends": frames["ends"].clear(), "losses": frames["losses"].clear()})


def test_a_number_that_no_sum_holds_is_set_aside_alone(place: tuple[str, str], tmp_path: Path) -> None:
    url, name = place
    frames, stream = many_frames(20), EventStream(*place)
    place_and_time = {"city": pl.lit("c"), "line": pl.lit(1, pl.Int64), "at": START, KNOWN_AT: START}
    huge = frames["trips"].head(3).with_columns(fare=pl.lit(9.2e12), trip=pl.col("trip") + 100, **place_and_time)
    stream.send("trips", as_json(pl.concat([frames["trips"], huge.cast(frames["trips"].schema)])))
    one = drained(consumer(url, name, tmp_path))
    assert one.counts.aside >= 1
    assert {letter.reason.partition(" (")[0] for letter in stream.dead_letters()} == {"trips: cannot be applied"}
    assert_equals_oracle(url, name, {**frames, "ends": frames["ends"].clear(), "losses": frames["losses"].clear()})


# Redis away


def test_a_store_that_is_away_says_so_and_comes_back(tmp_path: Path) -> None:
    server = Server(tmp_path, *KEEPS)
    tiles, stream = RedisTiles(server.url, "p"), EventStream(server.url, "p")
    wanted = [Wanted("log", b"e", 1, 1, (1,))]
    change = Change("log", b"e", 1, 0, lambda held: (b"p", b"e"))
    with ExitStack() as ends:
        ends.callback(server.kill)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=rf"{server.port}.* cannot be reached .*start it or correct"):
                tiles.read(wanted)
            with pytest.raises(StoreUnavailable):
                stream.send("t", [b"{}"])
            server.start()
            tiles.update([change])
            stream.send("t", [b"{}"])
            assert tiles.read(wanted)[0].parts == {1: b"p"}
            server.kill()
            server.start()  # the connections were closed meanwhile, and the scripts are unknown
            assert tiles.read(wanted)[0].events == {1: b"e"}
            tiles.update([change])
            server.kill()
    with pytest.raises(StoreUnavailable, match=r"^Redis at 127\.0\.0\.1:9, database 1 cannot be reached"):
        RedisTiles("redis://user:secret@127.0.0.1:9/1", "p").read(wanted)
    with pytest.raises(DeclarationError, match=r"the address of Redis ends with .*; write redis:"):
        RedisTiles("http://127.0.0.1", "p").read(wanted)


PRODUCTION = {
    "ML_PLATFORM_PROFILE": "production",
    "ML_PLATFORM_POSTGRES_URL": "postgresql+psycopg2://nobody@127.0.0.1:9/none",  # nothing here asks it
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, *KEEPS)
    made.start()
    yield made
    made.kill()


def test_a_service_without_redis_answers_why_and_recovers(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for world in standard(tmp_path / "world"):
        embedded = world.profile
        addresses = {
            "ML_PLATFORM_HOME": str(embedded.home),
            "ML_PLATFORM_PROJECT": "tiny",
            "ML_PLATFORM_LAKE": embedded.lake,
            "ML_PLATFORM_MLFLOW_URI": embedded.mlflow_uri,
            "ML_PLATFORM_MLFLOW_ARTIFACTS": embedded.mlflow_artifacts,
            "ML_PLATFORM_REDIS_URL": server.url,
        }
        for name, value in (PRODUCTION | addresses).items():
            monkeypatch.setenv(name, value)
        past = {"trip": "before", "line": 7, "delay": 0.3, "known_at": NOON - timedelta(hours=1)}
        tiles = RedisTiles(server.url, "tiny")
        said_whole(world.project, tiles)
        LiveViews(world.project.views.values(), tiles).apply("arrivals", pl.DataFrame([past]))
        with running(Profile.from_environment(), "desk") as process:
            client = Client(process.url)
            before = client.predict([ROW], NOON)
            server.kill()
            for _ in range(2):
                with pytest.raises(ServiceError, match=r"503: Redis at .* cannot be reached"):
                    client.predict([ROW], NOON)
            late = {**past, "trip": "late", "known_at": (NOON - timedelta(hours=2)).isoformat(), "delay": 0.9}
            with pytest.raises(ServiceError, match="503: Redis"):
                client.ingest({"arrivals": [late]})
            server.start()
            assert client.predict([ROW], NOON) == before
            assert client.ingest({"arrivals": [late]}) == []
            client.predict([{**ROW, "trip": "after"}], NOON)
        logged = world.log.predictions("desk").rows_by_key("prediction_id", named=True, unique=True)
        assert set(logged) == {ROW["trip"], "after"}
        assert (logged[ROW["trip"]]["features"][2], logged["after"]["features"][2]) == (0.3, 0.6)


def test_the_command_consumes_until_it_is_told_to_end(server: Server, tmp_path: Path) -> None:
    """It survives that Redis goes away, and applies what the other command sent."""
    home = tmp_path / "home"
    environment = {
        **os.environ,
        **PRODUCTION,
        "ML_PLATFORM_HOME": str(home),
        "ML_PLATFORM_PROJECT": "ml_platform_tests.trips",
        "ML_PLATFORM_LAKE": str(home / "lake"),
        "ML_PLATFORM_MLFLOW_URI": "sqlite://",
        "ML_PLATFORM_MLFLOW_ARTIFACTS": str(home),
        "ML_PLATFORM_REDIS_URL": server.url,
    }
    rows = [
        {"trip": f"t{n}", "line": "A", "minutes_late": n, "known_at": f"2024-03-01T12:{n:02}:00Z"} for n in range(30)
    ]
    lines = [json.dumps(row) for row in [*rows, {**rows[0], "line": None}, {**rows[0], "line": 5}]]
    command = [sys.executable, "-m", "ml_platform.cli"]
    with subprocess.Popen([*command, "consume"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "reads events:trips" in process.stdout.readline()
        server.kill()
        said = process.stdout.readline()
        assert f"Redis at 127.0.0.1:{server.port}, database 0 cannot be reached" in said
        server.start()
        sent = subprocess.run(
            [*command, "ingest", "ended"],
            input="\n".join(lines),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (sent.returncode, sent.stdout.splitlines()) == (
            1,
            ["line 32, column 'line': '5' is not of the type String: refused", SENT],
        )
        stream = EventStream(server.url, "trips")
        while stream.waiting():
            time.sleep(0.01)
        process.terminate()
        assert process.wait(10) == 0
        assert "30 events applied, 1 set aside in events:trips:dead" in process.stdout.read()
    assert [letter.reason for letter in stream.dead_letters()] == ["ended: line_not_null"]
    with redis.Redis(port=server.port) as client:
        assert client.xinfo_consumers(stream.stream, "live") == []


SENT = "ended: 31 sent to the stream, 0 set aside, 1 refused"
