"""Live windows whose store lost its data: refused in words, never a zero, and right again once they are filled."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis
from click.testing import CliRunner, Result

from ml_platform.cli import main
from ml_platform.features.follow import Delivered, FollowedOnce, follow_days, followed
from ml_platform.features.oracle import Oracle
from ml_platform.resources.profiles import Profile
from ml_platform.serving.bring_back import BringBack
from ml_platform.serving.client import Client
from ml_platform.serving.process import running
from ml_platform.sources.admission import everything
from ml_platform.spec import KNOWN_AT, Project, ServiceError, WindowsLost
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.home import Home
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.redis_settings import doubts
from ml_platform.stores.tiles import SqliteTiles
from ml_platform.stores.tiles_redis import RedisTiles
from ml_platform_tests import test_features_assets as small
from ml_platform_tests.redis_server import KEEPS, Server
from ml_platform_tests.serving_world import NOON, ROW, World, standard
from ml_platform_tests.test_live_redis import PRODUCTION

HOUR = timedelta(hours=1)
# Beside the view of open trips, which may be planned long before, one that looks back on what became known lately.
LATELY = replace(small.VIEWS["lines"], name="lately", time=KNOWN_AT, features=small.VIEWS["lines"].features[:2])
ROWS = {name: small.dated(rows) for name, rows in small.raw().items() if name != "places"}


def _project() -> Project:
    def source(name: str) -> Callable[[datetime, datetime], pl.DataFrame]:
        return lambda start, end: (
            ROWS[name].drop(PARTITION).filter(pl.col(KNOWN_AT).is_between(start, end, closed="left"))
        )

    tables = {name: replace(table, read=source(name)) for name, table in small.TABLES.items() if name != "places"}
    return replace(small.PROJECT, tables=tables, views={"lines": small.VIEWS["lines"], "lately": LATELY})


@dataclass
class Life:
    """A project lived through hour by hour: events as they become known, each day closed after it, and losses."""

    folder: Path
    draw: random.Random

    def __post_init__(self) -> None:
        self.project, self.now = _project(), day_start(small.STARTS, small.NEW_YORK)
        self.lake, self.tiles = Lake(str(self.folder / "lake")), SqliteTiles(self.folder / "live.db")
        self.live = followed(self.project, self.tiles, lambda: self.now)
        self.delivered = Delivered()
        self.once = FollowedOnce(self.project, self.delivered)
        self.oracles = {name: Oracle(view, ROWS) for name, view in self.project.views.items()}
        self.refused = self.answered = 0

    def hour(self) -> None:
        """The next hour's events, some of them twice."""
        before, self.now = self.now, self.now + HOUR
        for name, rows in ROWS.items():
            new = rows.filter(pl.col(KNOWN_AT).is_between(before, self.now, closed="right")).drop(PARTITION)
            self.live.apply(name, new)
            self.delivered.note(name, new)

    def close(self, day: date, run: str) -> None:
        """The day's tables; then its assets, one a view."""
        for name, rows in ROWS.items():
            self.lake.replace(f"raw/{name}", rows.filter(pl.col(PARTITION) == day), [day])
        for view in self.project.views.values():
            self.once.follow(run, view, self.lake, self.tiles, [day], self.now)

    def make_again(self, day: date) -> None:
        """A closed day of one view, while today's events go on."""
        view = self.project.views[self.draw.choice(["lines", "lately"])]
        follow_days(view, self.project, self.lake, self.tiles, [day], self.now)

    def lose(self) -> None:
        """All at once, as by FLUSHDB or a restart without persistence."""
        self.tiles._connection().execute("DELETE FROM tiles")

    def bring_back(self) -> None:
        online = OnlineStore(self.folder / "online.db", "small")
        stores = {"project": self.project, "lake": self.lake, "tiles": self.tiles, "online": online}
        list(BringBack(**stores, admit=everything, now=self.now).run())  # type: ignore[arg-type]

    def ask(self) -> bool:
        """Whether both views answered for all lines, each of them what the raw rows say."""
        whole = True
        for name, oracle in self.oracles.items():
            at = self.now - timedelta(minutes=self.draw.choice([0, 0, 17, 200]))
            try:
                found = self.live.values([(name, (line,)) for line in "abcd"], at)
            except WindowsLost:
                self.refused, whole = self.refused + 1, False
                continue
            assert found == [oracle.values((line,), at) for line in "abcd"], (name, at)
            self.answered += 1
        return whole


@pytest.mark.parametrize("seed", range(25))
def test_an_answer_is_whole_or_refused_whatever_is_lost_and_when(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    life = Life(tmp_path, draw)
    life.bring_back()  # a project of no closed day yet
    lost_at = life.now - HOUR
    for day in days_between(small.STARTS, small.LAST):
        end = day_start(day + timedelta(days=1), small.NEW_YORK)
        while life.now < end:
            if draw.random() < 0.04:
                life.lose()
                lost_at = life.now
                assert not life.ask()
            if draw.random() < 0.03:
                life.bring_back()
                assert life.ask()
            if day > small.STARTS and draw.random() < 0.05:
                life.make_again(day - timedelta(days=1))
            life.hour()
            life.ask()
        life.hour()  # the assets are late
        life.close(day, f"run {day}")
        if lost_at < end - 5 * HOUR:
            assert life.ask()  # the day is closed in which they were lost, and events said when they went on
        if draw.random() < 0.1:
            life.close(day, "again")
    assert life.answered > 20


def test_events_alone_never_pass_for_whole_windows(tmp_path: Path) -> None:
    life = Life(tmp_path, random.Random(1))
    for _ in range(6 * 24):
        life.hour()
        assert not life.ask()  # nobody ever followed a day
    assert life.answered == 0


# A real Redis, the real service and the real command

TABLE = """
    from pathlib import Path
    import polars as pl
    from ml_platform.spec import SourceTable
    def read(first, last):
        rows = pl.read_parquet(Path(__file__).with_name("{name}.parquet"))
        return rows.filter(pl.col("known_at").is_between(first, last, closed="left"))
    {name} = SourceTable(read=read, key=("trip",), description="d", known_at_source="s", columns={columns})
    """
TIME = 'pl.Datetime("us", "UTC")'
ARRIVALS = f'{{"trip": pl.String, "line": pl.Int64, "delay": pl.Float64, "known_at": {TIME}}}'
TRIPS = ARRIVALS.replace('"delay"', f'"city": pl.String, "leaves": {TIME}, "load"')
TODAY = date(2013, 4, 1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, *KEEPS)
    made.start()
    yield made
    made.kill()


def _arrivals() -> pl.DataFrame:
    known = [NOON - timedelta(hours=40) + n * timedelta(minutes=33) for n in range(100)]
    rows = {"trip": [f"a{n}" for n in range(100)], "line": [7] * 100, "delay": [float(n) for n in range(100)]}
    return pl.DataFrame(rows | {"known_at": known}).with_columns(pl.col("known_at").dt.cast_time_unit("us"))


def _trips() -> pl.DataFrame:
    at = NOON - timedelta(hours=30)
    row = {"trip": "old", "city": "Rome", "line": 3, "load": 0.9, "leaves": at, "known_at": at}
    return pl.DataFrame([row]).with_columns(pl.col("leaves", "known_at").dt.cast_time_unit("us"))


@pytest.fixture
def tiny(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """In production, on an empty Redis; closed days in the lake, all rows in the sources."""
    columns = {"arrivals": ARRIVALS, "trips": TRIPS}
    changed = {f"tiny/tables/{name}.py": TABLE.format(name=name, columns=c) for name, c in columns.items()}
    for world in standard(tmp_path / "world", changed):
        settings = {
            "ML_PLATFORM_HOME": str(world.profile.home),
            "ML_PLATFORM_PROJECT": "tiny",
            "ML_PLATFORM_LAKE": world.profile.lake,
            "ML_PLATFORM_MLFLOW_URI": world.profile.mlflow_uri,
            "ML_PLATFORM_MLFLOW_ARTIFACTS": world.profile.mlflow_artifacts,
            "ML_PLATFORM_REDIS_URL": server.url,
        }
        for name, value in (PRODUCTION | settings).items():
            monkeypatch.setenv(name, value)
        Home(world.profile.home).prepare("tiny")
        Clock(world.profile.clock_path).set(NOON)
        lake = Lake(world.profile.lake)
        for name, rows in (("arrivals", _arrivals()), ("trips", _trips())):
            rows.write_parquet(tmp_path / "world" / "tiny" / "tables" / f"{name}.parquet")
            days = days_between(date(2013, 3, 29), TODAY - timedelta(days=1))
            lake.replace(f"raw/{name}", small.dated(rows).filter(pl.col(PARTITION) < TODAY), days)
        yield world


def _bring_back(*views: str) -> Result:
    return CliRunner().invoke(main, ["bring-back", *views])


def _values(world: World) -> dict[str, list[float | None]]:
    logged = world.log.predictions("desk").rows_by_key("prediction_id", named=True, unique=True)
    return {str(trip): row["features"] for trip, row in logged.items()}


def _mean(world: World, at: datetime) -> float | None:
    found = Oracle(world.project.views["line_past"], {"arrivals": _arrivals()}).values((7,), at)["delay_mean_1d"]
    assert isinstance(found, float)
    return found


@pytest.mark.service("redis")
def test_a_service_whose_redis_was_flushed_refuses_and_never_serves_a_zero(tiny: World, server: Server) -> None:
    lost = r"503: the live windows of line_past hold no closed day: .* their store lost .*`ml-platform bring-back`"
    with running(Profile.from_environment(), "desk") as process, redis.Redis.from_url(server.url) as client:
        desk = Client(process.url)
        with pytest.raises(ServiceError, match=lost):
            desk.predict([ROW], NOON)
        done = _bring_back()
        assert done.exit_code == 0, done.output
        assert (done.exit_code, done.output.splitlines()[1]) == (0, "city_load: newest values of 1 entities published")
        desk.predict([ROW], NOON)
        client.flushall()
        late = {"trip": "late", "line": 7, "delay": 5.0, "known_at": (NOON - HOUR).isoformat()}
        for trip in ("x1", "x2"):
            with pytest.raises(ServiceError, match=lost):
                desk.predict([{**ROW, "trip": trip}], NOON)
            assert desk.ingest({"arrivals": [late]}) == []  # an event does not hide the loss
        assert _bring_back("line_past", "city_load").exit_code == 0
        desk.predict([{**ROW, "trip": "after"}], NOON - HOUR)
    assert set(_values(tiny)) == {ROW["trip"], "after"}
    on_the_grid = NOON.replace(minute=0)
    assert _values(tiny)[str(ROW["trip"])] == [0.9, 3, _mean(tiny, on_the_grid)]
    assert _values(tiny)["after"] == [0.9, 3, _mean(tiny, on_the_grid - HOUR)]
    assert "no feature view named 'line_pas'; did you mean line_past" in _bring_back("line_pas").output


@pytest.mark.service("redis")
def test_the_asset_of_the_day_brings_lost_windows_back(tiny: World, server: Server) -> None:
    """Events since the loss come one by one, and today's before it with the day that is closed."""
    assert _bring_back().exit_code == 0
    view, now = tiny.project.views["line_past"], [NOON]
    live = followed(tiny.project, RedisTiles(server.url, "tiny"), lambda: now[0])
    asked, midnight = [("line_past", (7,))], day_start(TODAY + timedelta(days=1), tiny.project.timezone)
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    rows = _arrivals()
    live.apply("arrivals", rows.filter(pl.col("known_at") > NOON))
    for moment in (NOON, NOON + HOUR, midnight + HOUR):
        with pytest.raises(WindowsLost):
            live.values(asked, moment)
    lake = Lake(tiny.profile.lake)
    lake.replace("raw/arrivals", small.dated(rows).filter(pl.col(PARTITION) == TODAY), [TODAY])
    now[0] = midnight + timedelta(minutes=5)
    assert follow_days(view, tiny.project, lake, live.tiles, [TODAY], now[0]) > 0
    for moment in (NOON, midnight, midnight + HOUR):
        assert live.values(asked, moment)[0]["delay_mean_1d"] == _mean(tiny, moment)


@pytest.mark.service("redis")
def test_settings_under_which_redis_forgets_are_said_aloud(server: Server, tmp_path: Path) -> None:
    assert doubts(server.url) == []
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
        evicts, forgets = doubts(server.url)
        assert f"Redis at 127.0.0.1:{server.port}, database 0: maxmemory-policy is allkeys-lru: where memory" in evicts
        assert "appendonly is no: a restart takes back" in forgets
        client.acl_setuser("default", enabled=True, nopass=True, commands=["-info"])
        (unknown,) = doubts(server.url)
        assert "it is unknown whether Redis keeps what it is told: " in unknown
        assert "`maxmemory-policy noeviction`" in unknown
