"""Forgetting where production keeps it: online values, live windows, events on their way and dead letters on Redis."""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis

from ml_platform.features.assets import GRID
from ml_platform.features.follow import follow_days
from ml_platform.features.oracle import Oracle
from ml_platform.features.refresh import rows_of_days
from ml_platform.forgetting.work import Forgetting
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.consumer import Consumer
from ml_platform.serving.events import Ingestor
from ml_platform.spec import HomeLocked, Project
from ml_platform.spec.calendar import days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.event_stream import EventStream
from ml_platform.stores.online import online_store
from ml_platform.stores.tiles_redis import RedisTiles
from ml_platform_tests.forget_world import places_of
from ml_platform_tests.redis_server import KEEPS, Server
from ml_platform_tests.replay_world import PACKAGE, eve, folder_of_the_run, midnight_after
from ml_platform_tests.trips.world import SHIFTS_ON

TRIP = "20240308-40"
LAST = SHIFTS_ON - timedelta(days=1)
NOW = midnight_after(LAST)


@dataclass
class World:
    """A state folder whose online half is a Redis server of its own."""

    profile: Profile
    server: Server
    client: "redis.Redis"

    @property
    def project(self) -> Project:
        return load_project(PACKAGE)

    @property
    def ingestor(self) -> Ingestor:
        return Ingestor.open(self.profile)

    @property
    def stream(self) -> EventStream:
        return EventStream(self.server.url, self.project.name)

    def consumer(self, name: str) -> Consumer:
        return Consumer(self.ingestor, self.stream, Clock(self.profile.clock_path).now, name=name, batch=2)

    def content(self) -> dict[bytes, object]:
        """Everything that is there."""
        read = {
            b"hash": self.client.hgetall,
            b"stream": self.client.xrange,
            b"zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
        }
        return {key: read[self.client.type(key)](key) for key in self.client.scan_iter()}

    def naming(self, value: str) -> list[str]:
        """Every key of which the name or the stored form holds the value."""
        keys = list(self.client.scan_iter(count=1000))
        return [repr(key) for key in keys if value.encode() in key or value.encode() in self.client.dump(key)]


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = eve(folder_of_the_run(tmp_path_factory.getbasetemp())).copy(tmp_path / "home")
    for path in (*home.path.glob("feast_online.db*"), *home.path.glob("live.db*")):
        path.unlink()  # what production has on Redis
    (tmp_path / "redis").mkdir()
    server = Server(tmp_path / "redis", *KEEPS, "--rdbcompression", "no")
    server.start()
    with redis.Redis.from_url(server.url) as client:
        made = World(replace(home.profile, redis_url=server.url), server, client)
        _fill(made)
        yield made
    server.kill()
    shutil.rmtree(tmp_path)


def _fill(world: World) -> None:
    project, lake = world.project, world.ingestor.lake
    tiles, online = RedisTiles(world.server.url, project.name), online_store(world.server.url, project.name)
    days = days_between(project.starts, LAST)
    for view in project.views.values():
        online.publish(view, rows_of_days(view, project, lake, days[0], days[-1], GRID), NOW)
        follow_days(view, project, lake, tiles, days, midnight_after(LAST))


def _row(trip: str, line: str | None, hours: float) -> bytes:
    known = (NOW + timedelta(hours=hours)).isoformat()
    return json.dumps({"trip": trip, "line": line, "minutes_late": 1, "known_at": known}).encode()


def _forget(world: World, written: str) -> Forgetting:
    work = Forgetting.of(world.profile, written)
    with work.alone():
        for step in work.steps(work.held()):
            step.do()
    return work


@pytest.mark.service("redis")
def test_nothing_of_it_is_left_on_redis_and_all_else_is(world: World) -> None:
    Clock(world.profile.clock_path).set(NOW + timedelta(hours=3))
    first = world.consumer("first")
    world.stream.send("ended", [_row("other", "A", 0.5), _row(TRIP, None, 0.5), _row(TRIP, "A", 4000)])
    while world.stream.waiting():
        first.step()
    assert len([*world.stream.dead_letters()]) == 2
    world.stream.send("ended", [_row("on-its-way", "B", 1), _row(TRIP, "B", 1), b"no JSON, but " + TRIP.encode()])
    world.stream.send("ended", [_row("another", "B", 1)])
    assert len(world.stream.take("killed", 2)) == 2  # taken, and never finished
    world.client.hset("of somebody else", "field", "value")
    world.client.hset(
        b"\x01\x00\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00trip\x02\x00\x00\x00\x01\x00\x00\x001shop", "f", "v"
    )
    feast = b"\x01\x00\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00trip\x02\x00\x00\x00\x0b\x00\x00\x00" + TRIP.encode()
    world.client.hset(feast + b"trips", "what Feast wrote of a view that is gone", "v")
    before = world.content()
    listed = {one.place: one.count for one in Forgetting.of(world.profile, f"trip={TRIP}").held()}
    assert world.content() == before
    assert (listed["Redis, events:trips"], listed["Redis, events:trips:dead"]) == (2, 2)
    # Of live windows a tile of events, and what is remembered of the fact.
    assert (listed["online store"], listed["live windows, tiles"]) == (1, 2)

    # Consumers asked a moment ago: one of them may still be there.
    with (
        pytest.raises(HomeLocked, match=r"consumer (first|killed)"),
        Forgetting.of(world.profile, f"trip={TRIP}").alone(),
    ):
        pass
    for name in ("first", "killed"):
        world.client.xgroup_delconsumer("events:trips", "live", name)
    work = _forget(world, f"trip={TRIP}")
    assert work.remains == []
    assert world.naming(TRIP) == []
    assert places_of(world.profile.home, TRIP) == []
    assert places_of(world.server._folder, TRIP) == []  # the append-only file was written anew
    assert world.client.hget("of somebody else", "field") == b"value"
    assert world.client.exists(
        b"\x01\x00\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00trip\x02\x00\x00\x00\x01\x00\x00\x001shop"
    )
    assert world.stream.waiting() == 2

    second = world.consumer("second")
    world.stream.send("ended", [_row(TRIP, "B", 2)])
    while world.stream.waiting():
        second.step()
    assert (second.counts.applied, second.counts.aside, second.counts.forgotten) == (2, 0, 1)
    assert [*world.stream.dead_letters()] == []
    assert world.naming(TRIP) == []
    _assert_windows(world, {"A": ["other"], "B": ["on-its-way", "another"]})


def _assert_windows(world: World, more: dict[str, list[str]]) -> None:
    """The windows are those of the raw tables, by brute force, and of the events that came since."""
    view, at = world.project.views["line_past"], NOW + timedelta(hours=2)
    rows = world.ingestor.lake.scan("raw/ended").collect()
    assert (rows["trip"] != TRIP).all()
    late = [
        json.loads(_row(trip, line, 0.5 if line == "A" else 1)) | {"known_date": SHIFTS_ON}
        for line, trips in more.items()
        for trip in trips
    ]
    known = [{**row, "known_at": datetime.fromisoformat(row["known_at"])} for row in late]
    day = world.project.tables["ended"].read(NOW, NOW + timedelta(hours=3)).with_columns(known_date=pl.lit(SHIFTS_ON))
    extra = pl.DataFrame(known, schema_overrides=rows.schema).select(rows.columns)
    # Made anew, the windows hold what the source gives of the day that is not closed yet; "other" came before that.
    frames = {"ended": pl.concat([rows, day.select(rows.columns), extra.filter(pl.col("trip") != "other")])}
    oracle = Oracle(view, frames)
    for line in "ABCDE":
        assert world.ingestor.live.values([("line_past", (line,))], at)[0] == oracle.values((line,), at), line


@pytest.mark.service("redis")
def test_a_running_consumer_keeps_forgetting_out_and_is_named(world: World) -> None:
    ended, one = threading.Event(), world.consumer("busy-1")
    worker = threading.Thread(target=one.run, args=(ended, lambda said: None))
    worker.start()
    try:
        deadline = threading.Event()
        while not world.client.exists("events:trips"):
            deadline.wait(0.05)
        work = Forgetting.of(world.profile, f"trip={TRIP}")
        with pytest.raises(HomeLocked, match=r"in use by consumer busy-1; end it first, and try again"), work.alone():
            pass
    finally:
        ended.set()
        worker.join()
    with Forgetting.of(world.profile, f"trip={TRIP}").alone():
        pass  # it said good-bye
