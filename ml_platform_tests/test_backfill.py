"""Backfill: any ranges in any order give the rows that were made day by day, and only what changed is made again."""

import shutil
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ml_platform.features.assets import GRID
from ml_platform.features.backfill import Backfill, Piece, by_month, stale_days, summary
from ml_platform.features.follow import followed
from ml_platform.features.refresh import rows_of_days
from ml_platform.features.windows import AS_OF
from ml_platform.spec import KNOWN_AT, Entity, FeatureView, Latest, MissingHistory, PlatformError, Project, UnknownName
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.tiles import SqliteTiles
from ml_platform_tests import test_features_assets as small

NEW_YORK, VIEWS = small.NEW_YORK, ("lines", "trip_past", "seen")
FIRST, LAST = date(2024, 2, 25), date(2024, 3, 12)  # a month ends, and clocks change on March 10
DAYS = days_between(FIRST, LAST)
NOW = day_start(LAST + timedelta(days=1), NEW_YORK)
SEEN = FeatureView(
    name="seen",
    source="trips",
    key=("trip",),
    entities=(Entity(name="line"),),
    derive={"one": pl.lit(1)},
    description="The same value again and again, of one line after days without a trip.",
    features=(Latest("one", "int64"),),
)
PROJECT = replace(
    small.PROJECT,
    starts=FIRST,
    ready_from=FIRST,
    serves_from=LAST,
    replay_until=LAST,
    views={**small.VIEWS, "seen": SEEN},
)


def raw() -> dict[str, pl.DataFrame]:
    """Trips of three lines on every day, some known late, most of them ended; 40 a day. One each five days of "d"."""
    chance = np.random.default_rng(11)
    start = day_start(FIRST, NEW_YORK)
    count = 40 * len(DAYS)
    minutes = np.sort(chance.integers(0, int((NOW - start) / timedelta(minutes=1)), count))
    happened = [start + timedelta(minutes=int(m)) for m in minutes]
    late = chance.integers(0, 90, count)
    trips = pl.DataFrame(
        {
            "trip": range(count),
            "line": ["d" if n % 200 == 0 else str(v) for n, v in enumerate(chance.choice(["a", "b", "c"], count))],
            "at": happened,
            "minutes": [None if n % 11 == 0 else float(v) for n, v in enumerate(chance.normal(10, 5, count))],
            KNOWN_AT: [at + timedelta(minutes=int(by)) for at, by in zip(happened, late, strict=True)],
        },
        schema={**small.TABLES["trips"].columns},
    )
    ends = trips.select("trip", pl.col(KNOWN_AT) + pl.duration(minutes=pl.col("trip") % 500))
    return {"trips": trips, "ends": ends.filter(pl.col("trip") % 3 > 0), "places": small.raw()["places"]}


class World:
    """A folder with the raw tables, and the feature tables that a backfill makes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake = Lake(str(folder / "lake"))

    def fill(self) -> "World":
        for name, rows in raw().items():
            if small.TABLES[name].partitioned:
                self.lake.replace(f"raw/{name}", small.dated(rows).filter(pl.col(PARTITION) <= LAST), DAYS)
            else:
                self.lake.replace(f"raw/{name}", rows, None)
        return self

    def copy(self, folder: Path) -> "World":
        shutil.copytree(self.folder, folder)
        return World(folder)

    def backfill(self, project: Project = PROJECT, **other: Any) -> Backfill:
        stores = {
            "lake": self.lake,
            "online": OnlineStore(self.folder / "online.db", "small"),
            "tiles": SqliteTiles(self.folder / "live.db"),
            "now": NOW,
        }
        return Backfill(project=project, record=self.folder / "backfill", grid=GRID, **(stores | other))

    def make(self, *days: date | None, project: Project = PROJECT) -> list[Piece]:
        work = self.backfill(project)
        return made(work, work.plan(VIEWS, *days))

    def log(self, view: str) -> pl.DataFrame:
        return self.lake.scan(f"features/{view}").collect().sort(*PROJECT.views[view].entity_names, AS_OF)

    def correct(self, day: date) -> None:
        """Every other trip of the day is struck out, the others took twice as long."""
        rows = self.lake.scan("raw/trips", first=day, last=day).collect()
        self.lake.replace("raw/trips", rows.gather_every(2).with_columns(pl.col("minutes") * 2), [day])


def made(work: Backfill, pieces: list[Piece]) -> list[Piece]:
    for piece in pieces:
        work.make(piece)
        work.finish(piece)
    return pieces


def days_of(pieces: list[Piece], view: str) -> list[date]:
    return [day for piece in pieces if piece.view.name == view for day in piece.days]


def day_by_day(lake: Lake) -> dict[str, pl.DataFrame]:
    """What a platform has that makes each day as it closes, by the function that its assets call."""
    found = {}
    for name in VIEWS:
        view = PROJECT.views[name]
        rows = pl.concat(rows_of_days(view, PROJECT, lake, day, day, GRID) for day in DAYS)
        found[name] = rows.sort(*view.entity_names, AS_OF)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("source")).fill()


@pytest.fixture(scope="module")
def grown(source: World) -> dict[str, pl.DataFrame]:
    return day_by_day(source.lake)


@pytest.fixture(scope="module")
def whole(source: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """All of it was made."""
    world = source.copy(tmp_path_factory.mktemp("whole") / "world")
    world.make()
    return world


@pytest.fixture
def world(whole: World, tmp_path: Path) -> World:
    return whole.copy(tmp_path / "world")


# Parity


_RANGES = st.lists(st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)).map(sorted), min_size=1, max_size=2)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranges=_RANGES)
def test_any_ranges_in_any_order_equal_day_by_day(
    source: World, grown: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory, ranges: list[list[date]]
) -> None:
    world = source.copy(tmp_path_factory.mktemp("split") / "world")
    covered: set[date] = set()
    for first, last in ranges:
        asked = set(days_between(first, last))
        pieces = world.make(first, last)
        for view in VIEWS:
            found = days_of(pieces, view)
            assert asked - covered <= set(found) <= asked
            assert len(found) == len(set(found))
        covered |= asked
    for view in VIEWS:
        assert_frame_equal(world.log(view), grown[view].filter(pl.col(PARTITION).is_in(covered)), check_exact=True)
    world.make()
    for view in VIEWS:
        assert_frame_equal(world.log(view), grown[view], check_exact=True)
    assert world.backfill().plan(VIEWS) == []


def test_a_backfill_equals_what_the_assets_made_everywhere(tmp_path: Path) -> None:
    by_assets, by_backfill = small.Place(tmp_path / "assets"), small.Place(tmp_path / "backfill")
    by_assets.make(small.STARTS, small.LAST - timedelta(days=1))
    by_assets.make(small.LAST, small.LAST)
    now = by_assets.clock.now()
    stores = {"lake": by_backfill.lake, "online": by_backfill.online, "tiles": by_backfill.tiles}
    work = Backfill(project=small.PROJECT, record=tmp_path / "record", grid=GRID, now=now, **stores)  # type: ignore[arg-type]
    made(work, work.plan(list(small.VIEWS)))
    assert work.plan(list(small.VIEWS)) == []
    for name, view in small.VIEWS.items():
        assert_frame_equal(by_backfill.log(name), by_assets.log(name), check_exact=True)
        keys = by_assets.log(name).select(view.entity_names).unique().rows()
        assert by_backfill.served(name, keys) == by_assets.served(name, keys)
    asked = [("lines", (line,)) for line in "abcd"]
    for at in (now, now - timedelta(hours=30)):
        live, expected = (
            followed(small.PROJECT, place.tiles, lambda: now).values(asked, at)  # type: ignore[arg-type]
            for place in (by_backfill, by_assets)
        )
        assert live == expected
        assert any(values["minutes_mean_26h"] for values in live)


def test_a_month_is_a_piece_and_one_commit(source: World, tmp_path: Path) -> None:
    world = source.copy(tmp_path / "world")
    work = world.backfill()
    pieces = work.plan(["lines"])
    assert [(piece.days[0], piece.days[-1]) for piece in pieces] == [
        (FIRST, date(2024, 2, 29)),
        (date(2024, 3, 1), LAST),
    ]
    made(work, pieces)
    assert world.lake.version("features/lines") == len(pieces)  # version 0 is the empty table
    assert summary(pieces) == "made lines: 17 days, 2024-02-25 to 2024-03-12"
    assert by_month([date(2024, 1, 3), date(2024, 1, 1), date(2024, 2, 9)]) == [
        tuple(days_between(date(2024, 1, 1), date(2024, 1, 3))),
        (date(2024, 2, 9),),
    ]


# What is left to do


def test_a_new_raw_day_asks_for_itself_alone(world: World) -> None:
    rows = world.lake.scan("raw/trips", last=LAST).collect()
    for name in ("trips", "ends"):  # as if the last day had not come yet
        world.lake.replace(f"raw/{name}", world.lake.scan(f"raw/{name}").collect().clear(), [LAST])
    world.lake.replace("features/lines", world.log("lines").clear(), [LAST])
    assert world.backfill().plan(["lines"]) == []
    world.lake.replace("raw/trips", rows.filter(pl.col(PARTITION) == LAST), [LAST])
    world.lake.replace("raw/ends", small.dated(raw()["ends"]).filter(pl.col(PARTITION) == LAST), [LAST])
    assert days_of(world.backfill().plan(["lines"]), "lines") == [LAST]


def test_a_changed_declaration_asks_for_its_view_alone(world: World) -> None:
    lines = replace(PROJECT.views["lines"], where=pl.col("line") != "b")
    changed = replace(PROJECT, views={**PROJECT.views, "lines": lines})
    pieces = world.make(project=changed)
    assert {piece.view.name for piece in pieces} == {"lines"}
    assert days_of(pieces, "lines") == DAYS
    assert set(world.log("lines")["line"]) == {"a", "c", "d"}


def test_rows_that_others_replaced_or_lost_are_made_again(world: World, grown: dict[str, pl.DataFrame]) -> None:
    day = date(2024, 3, 3)
    world.lake.replace("features/lines", world.log("lines").clear(), [day])
    assert days_of(world.make(), "lines") == [day]
    shutil.rmtree(world.folder / "lake" / "features" / "lines")
    assert days_of(world.make(), "lines") == DAYS
    shutil.rmtree(world.folder / "backfill")  # a record that is lost costs time only
    assert days_of(world.make(), "lines") == DAYS
    assert_frame_equal(world.log("lines"), grown["lines"], check_exact=True)


def test_again_forgets_first_so_that_a_killed_one_goes_on(world: World) -> None:
    assert world.backfill().plan(["lines"]) == []
    work = world.backfill()
    pieces = work.plan(["lines"], date(2024, 2, 27), date(2024, 3, 2), again=True)
    assert days_of(pieces, "lines") == days_between(date(2024, 2, 27), date(2024, 3, 2))
    made(work, pieces[:1])
    assert days_of(world.backfill().plan(["lines"]), "lines") == days_between(date(2024, 3, 1), date(2024, 3, 2))


def test_a_reference_view_is_made_whole_and_again_when_more_of_it_is_known(source: World, tmp_path: Path) -> None:
    world = source.copy(tmp_path / "world")
    early = world.backfill(now=day_start(date(2024, 3, 7), NEW_YORK))
    pieces = made(early, early.plan(["places"]))
    assert summary(pieces) == "made places: the whole table"
    assert world.log("places")["seats"].to_list() == [5]
    assert early.plan(["places"]) == []
    late = world.backfill()
    made(late, late.plan(["places"]))
    assert world.log("places")["seats"].to_list() == [5, 6]
    assert late.plan(["places"]) == []


# Corrections


@pytest.mark.parametrize("day", [date(2024, 2, 29), date(2024, 3, 9), LAST])
def test_after_a_correction_all_days_that_look_back_on_it_are_made_and_no_other(world: World, day: date) -> None:
    before = {view: (world.log(view), world.lake.files(f"features/{view}")) for view in VIEWS}
    world.correct(day)
    work = world.backfill()
    made(work, work.plan_after_correction(day))
    expected = day_by_day(world.lake)
    for name in VIEWS:
        assert_frame_equal(world.log(name), expected[name], check_exact=True)
        stale = set(stale_days(PROJECT.views[name], PROJECT, day, GRID))
        unlike = {d for d in DAYS if not on(before[name][0], d).equals(on(expected[name], d))}
        assert day in unlike or name == "seen"
        assert unlike <= stale
        files = world.lake.files(f"features/{name}")
        filled = {*files, *before[name][1]} & set(DAYS)  # a day without rows has no file
        assert {d for d in filled if files.get(d) != before[name][1].get(d)} == stale & filled
    assert work.plan(VIEWS) == []


def on(rows: pl.DataFrame, day: date) -> pl.DataFrame:
    return rows.filter(pl.col(PARTITION) == day)


def test_a_correction_of_one_table_leaves_other_views_alone(world: World) -> None:
    day = date(2024, 3, 2)
    again = world.backfill().plan_after_correction(day, tables=["ends"], again=True)
    assert days_of(again, "lines") == days_between(day, date(2024, 3, 5))  # 26 hours, the grid, a closing day
    assert {piece.view.name for piece in again} == {"lines"}
    with pytest.raises(UnknownName, match=r"no source table named 'end'; did you mean ends\?"):
        world.backfill().plan_after_correction(day, tables=["end"])
    with pytest.raises(MissingHistory, match="2024-03-13 is outside the days"):
        world.backfill().plan_after_correction(LAST + timedelta(days=1))


# What is refused; nothing is written then


def test_missing_raw_days_are_named(source: World, tmp_path: Path) -> None:
    world = source.copy(tmp_path / "world")
    rows = world.lake.scan("raw/trips").collect()
    world.lake.replace("raw/trips", rows.clear(), [date(2024, 2, 28), date(2024, 3, 4)])
    says = (
        r"raw/trips lacks 2 of the days that lines from 2024-02-25 to 2024-03-12 is computed from "
        r"\(2024-02-28, 2024-03-04\); nothing was written. Materialize raw/trips of these days first, or begin with "
        r"--from 2024-03-07"
    )
    with pytest.raises(MissingHistory, match=says):
        world.backfill().plan(["lines", "trip_past"])
    assert not world.lake.exists("features/lines")
    assert not (world.folder / "backfill").exists()
    assert days_of(world.make(date(2024, 3, 7)), "lines") == days_between(date(2024, 3, 7), LAST)
    tables = {name: replace(table, may_be_empty=True) for name, table in PROJECT.tables.items()}
    assert days_of(world.make(project=replace(PROJECT, tables=tables)), "lines")[0] == FIRST


def test_days_outside_the_data_or_not_closed_are_refused(source: World) -> None:
    for first, last, outside in (
        (FIRST - timedelta(days=1), None, FIRST - timedelta(days=1)),
        (None, LAST + timedelta(days=1), LAST + timedelta(days=1)),
    ):
        with pytest.raises(MissingHistory, match=rf"{outside} is outside the days .* are {FIRST} to {LAST}"):
            source.backfill().plan(["lines"], first, last)
    noon = source.backfill(now=NOW - timedelta(hours=12))
    with pytest.raises(MissingHistory, match=rf"{LAST} is outside .* {FIRST} to 2024-03-11"):
        noon.plan(["lines"], None, LAST)
    assert days_of(noon.plan(["lines"]), "lines")[-1] == date(2024, 3, 11)
    with pytest.raises(PlatformError, match="--from 2024-03-12 is after --to 2024-02-25"):
        source.backfill().plan(["lines"], LAST, FIRST)
    with pytest.raises(UnknownName, match=r"no feature view named 'line'; did you mean lines\?"):
        source.backfill().plan(["line"])
