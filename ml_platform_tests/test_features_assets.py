"""Feature views as assets: a range and a day more equal the whole at once, offline and online, whatever is repeated."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform import asset_keys
from ml_platform.automation.partitions import RANGE_END_TAG, RANGE_START_TAG, daily
from ml_platform.features.assets import GRID, feature_assets
from ml_platform.features.follow import Delivered, FollowedOnce, follow_days, followed
from ml_platform.features.live import LiveViews
from ml_platform.features.live_view import micros
from ml_platform.features.live_whole import Following
from ml_platform.features.oracle import Oracle
from ml_platform.features.refresh import read_for_recall, recall_needed, rows_of_days, rows_of_reference
from ml_platform.features.windows import AS_OF, feature_rows
from ml_platform.spec import (
    KNOWN_AT,
    Active,
    Entity,
    FeatureView,
    Latest,
    MissingHistory,
    Project,
    SourceTable,
    Window,
    WindowsLost,
)
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.tiles import SqliteTiles

NEW_YORK = "America/New_York"
TIME = pl.Datetime("us", "UTC")
STARTS, LAST = date(2024, 3, 6), date(2024, 3, 11)  # clocks change on the 10th
HOUR = timedelta(hours=1)
LAST_BEGINS, NOW = (day_start(day, NEW_YORK) for day in (LAST, LAST + timedelta(days=1)))


def table(name: str, **columns: Any) -> SourceTable:
    return SourceTable(
        name=name,
        read=lambda start, end: pl.DataFrame(),
        columns={**columns, KNOWN_AT: TIME},
        key=(next(iter(columns)),),
        description="",
        known_at_source="",
        partitioned=name != "places",
    )


TABLES = {
    "trips": table("trips", trip=pl.Int64, line=pl.String, at=TIME, minutes=pl.Float64),
    "ends": table("ends", trip=pl.Int64),
    "places": table("places", place=pl.String, seats=pl.Int64),
}
VIEWS = {
    "lines": FeatureView(
        name="lines",
        source="trips",
        key=("trip",),
        entities=(Entity(name="line"),),
        time="at",
        description="Windows and open trips of a line.",
        features=(
            Window("minutes", "mean", over=(HOUR, 26 * HOUR)),
            Window("trip", "count", over=(3 * HOUR,)),
            Active(opened_at="at", closed_by=("ends",), key=("trip",), expires_after=6 * HOUR, name="open"),
        ),
    ),
    "trip_past": FeatureView(
        name="trip_past",
        source="trips",
        entities=(Entity(name="trip", dtype="int64"),),
        description="A trip as planned: asked for a day only.",
        online_for=timedelta(days=1),
        features=(Latest("minutes"),),
    ),
    "places": FeatureView(
        name="places",
        source="places",
        entities=(Entity(name="place"),),
        description="From a reference table.",
        features=(Latest("seats", "int64"),),
    ),
}
PROJECT = Project(
    name="small", features="nothing", timezone=NEW_YORK, starts=STARTS, ready_from=STARTS, serves_from=LAST,
    replay_until=LAST, tables=TABLES, views=VIEWS,
)  # fmt: skip


def raw() -> dict[str, pl.DataFrame]:
    """Trips of four lines at any minute; some known late, some null, one line silent from the third day on."""
    chance = np.random.default_rng(5)
    start, end = day_start(STARTS, NEW_YORK), day_start(LAST + timedelta(days=1), NEW_YORK)
    minutes = np.sort(chance.integers(0, int((end - start) / timedelta(minutes=1)), 400))
    happened = [start + timedelta(minutes=int(m)) for m in minutes]
    trips = pl.DataFrame(
        {
            "trip": range(400),
            "line": chance.choice(["a", "b", "c", "d"], 400),
            "at": happened,
            "minutes": [None if n % 11 == 0 else float(v) for n, v in enumerate(chance.normal(10, 5, 400))],
            KNOWN_AT: [
                at + timedelta(minutes=int(late))
                for at, late in zip(happened, chance.integers(0, 90, 400), strict=True)
            ],
        },
        schema={**TABLES["trips"].columns},
    ).filter((pl.col("line") != "d") | (pl.col("at") < start + timedelta(days=2)))
    ends = trips.select("trip", pl.col(KNOWN_AT) + pl.duration(minutes=pl.col("trip") % 500)).filter(
        pl.col("trip") % 3 > 0
    )
    places = pl.DataFrame(
        [("x", 5, start), ("y", None, start), ("x", 6, start + timedelta(days=3))],
        TABLES["places"].columns,
        orient="row",
    )
    return {"trips": trips, "ends": ends, "places": places}


def dated(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col(KNOWN_AT).dt.convert_time_zone(NEW_YORK).dt.date().alias(PARTITION))


class Place:
    """One lake and one online store with the raw tables in it."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(str(folder / "lake"))
        self.online = OnlineStore(folder / "online.db", "small")
        self.tiles = SqliteTiles(folder / "live.db")
        self.clock = Clock(folder / "clock.json")
        for name, rows in raw().items():
            in_time = dated(rows).filter(pl.col(PARTITION) <= LAST)
            days = days_between(STARTS, LAST) if TABLES[name].partitioned else None
            self.lake.replace(f"raw/{name}", in_time if days else rows, days)

    def make(self, first: date, last: date) -> dg.ExecuteInProcessResult:
        self.clock.set(day_start(last + timedelta(days=1), NEW_YORK))
        keys = {asset_keys.features(name) for name in VIEWS}
        assets = [asset for asset in feature_assets(PROJECT, daily(PROJECT)) if asset.key in keys]
        resources = {"lake": self.lake, "online": self.online, "clock": self.clock, "tiles": self.tiles}
        return dg.materialize(assets, resources=resources, tags={RANGE_START_TAG: str(first), RANGE_END_TAG: str(last)})

    def log(self, view: str) -> pl.DataFrame:
        names = VIEWS[view].entity_names
        return self.lake.scan(f"features/{view}").collect().sort(*names, AS_OF)

    def served(self, view: str, keys: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
        return self.online.read(VIEWS[view], keys)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Made as a platform does: a range of days, then a day more."""
    place = Place(tmp_path_factory.mktemp("grown"))
    place.make(STARTS, LAST - timedelta(days=1))
    place.make(LAST, LAST)
    return place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("whole"))
    place.make(STARTS, LAST)
    return place


@pytest.mark.parametrize("view", VIEWS)
def test_a_range_and_a_day_more_equal_the_whole(grown: Place, whole: Place, view: str) -> None:
    assert_frame_equal(grown.log(view), whole.log(view), check_exact=True)
    start, end = day_start(STARTS, NEW_YORK), day_start(LAST + timedelta(days=1), NEW_YORK)
    at_once = feature_rows(VIEWS[view], raw(), start, end, GRID).sort(*VIEWS[view].entity_names, AS_OF)
    assert_frame_equal(grown.log(view).drop(PARTITION), at_once, check_exact=True)
    assert at_once.height >= 2


def test_each_row_lies_in_its_local_day(grown: Place) -> None:
    found = grown.log("lines")
    assert set(found[PARTITION]) == set(days_between(STARTS, LAST))
    for day in (date(2024, 3, 9), date(2024, 3, 10)):
        rows = found.filter(pl.col(PARTITION) == day)[AS_OF]
        assert day_start(day, NEW_YORK) <= rows.min() <= rows.max() < day_start(day + timedelta(days=1), NEW_YORK)


@pytest.mark.parametrize("which", ["grown", "whole"])
@pytest.mark.parametrize("view", ["lines", "places"])
def test_the_online_store_holds_the_newest_rows(which: str, view: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(which)
    newest = place.log(view).unique(VIEWS[view].entity_names, keep="last", maintain_order=True)
    keys = newest.select(VIEWS[view].entity_names).rows()
    assert len(keys) == {"lines": 4, "places": 1}[view]
    assert place.served(view, keys) == newest.select(*VIEWS[view].schema()).to_dicts()
    assert place.served(view, [("nobody",)]) == [VIEWS[view].empty()]


def test_a_line_that_fell_silent_is_back_at_its_empty_values(grown: Place) -> None:
    assert grown.served("lines", [("d",)]) == [VIEWS["lines"].empty()]


def test_what_comes_and_goes_is_served_for_its_time_only(grown: Place) -> None:
    oldest = grown.clock.now() - timedelta(days=1)
    newest = grown.log("trip_past").unique("trip", keep="last", maintain_order=True)
    for row in newest.iter_rows(named=True):
        expected = row["minutes"] if row[AS_OF] >= oldest else None
        assert grown.served("trip_past", [(row["trip"],)]) == [{"minutes": expected}]
    assert newest.filter(pl.col(AS_OF) >= oldest).height not in (0, newest.height)


def test_repeating_changes_nothing(tmp_path: Path, whole: Place) -> None:
    place = Place(tmp_path)
    place.make(STARTS, LAST)
    place.make(date(2024, 3, 8), date(2024, 3, 9))  # older values must not replace newer ones online
    place.make(LAST, LAST)
    for view in VIEWS:
        assert_frame_equal(place.log(view), whole.log(view), check_exact=True)
    for view in ("lines", "places"):
        keys = place.log(view).select(VIEWS[view].entity_names).unique().rows()
        assert place.served(view, keys) == whole.served(view, keys)


def followed_before(project: Project, lake: Lake, folder: Path, now: datetime = LAST_BEGINS) -> SqliteTiles:
    """Live windows into which all days but the last were brought, at ``now``."""
    tiles = SqliteTiles(folder)
    for view in project.views.values():
        follow_days(view, project, lake, tiles, days_between(STARTS, LAST - timedelta(days=1)), now)
    return tiles


def test_a_closed_day_is_followed_once_a_run_for_all_views(tmp_path: Path) -> None:
    place, other = Place(tmp_path), replace(VIEWS["lines"], name="lines_again")
    project = replace(PROJECT, views={**VIEWS, other.name: other})
    once, tiles = FollowedOnce(project), followed_before(project, place.lake, tmp_path / "before.db")
    assert once.follow("a", VIEWS["lines"], place.lake, tiles, [LAST], NOW) > 0
    assert once.follow("a", other, place.lake, tiles, [LAST], NOW) == 0
    asked = [(name, (line,)) for name in ("lines", other.name) for line in "abcd"]
    values = followed(project, tiles, lambda: NOW).values(asked, NOW)
    assert values[:4] == values[4:]
    assert values[0] != VIEWS["lines"].empty()


def test_a_day_followed_into_lost_windows_brings_back_the_days_before(tmp_path: Path) -> None:
    """Within the same run, too: what it followed before is gone with the rest."""
    place, other = Place(tmp_path), replace(VIEWS["lines"], name="lines_again")
    project = replace(PROJECT, views={**VIEWS, other.name: other})
    once, tiles = FollowedOnce(project), followed_before(project, place.lake, tmp_path / "live.db")
    once.follow("a", VIEWS["lines"], place.lake, tiles, [LAST], NOW)
    live, asked = followed(project, tiles, lambda: NOW), [(other.name, (line,)) for line in "abcd"]
    values = live.values([("lines", (line,)) for line in "abcd"], NOW)
    live.tiles = emptied = SqliteTiles(tmp_path / "emptied.db")
    with pytest.raises(WindowsLost, match=r"lines_again hold no closed day: .* `ml-platform bring-back` fills them"):
        live.values(asked, NOW)
    once.follow("a", other, place.lake, emptied, [LAST], NOW)
    assert live.values(asked, NOW) == values
    with pytest.raises(WindowsLost, match="the live windows of lines hold no closed day"):
        live.values([("lines", ("a",))], NOW)


def test_a_day_alone_does_not_pass_for_its_history(tmp_path: Path) -> None:
    """Raw tables that lack a day in between: values are served from when nothing is missing any more."""
    place, hole = Place(tmp_path), LAST - timedelta(days=1)
    view = replace(VIEWS["lines"], time=KNOWN_AT, features=(Window("minutes", "mean", over=(2 * HOUR,)),))
    project = replace(PROJECT, views={"lines": view})
    for name in ("trips", "ends"):
        kept = [day for day in place.lake.days(f"raw/{name}") if day != hole]
        rows = place.lake.scan(f"raw/{name}").filter(pl.col(PARTITION) != hole).collect()
        place.lake.replace(f"raw/{name}", rows, sorted([*kept, hole]))
    assert follow_days(view, project, place.lake, place.tiles, [LAST], NOW) > 0
    live, begins = followed(project, place.tiles, lambda: NOW), LAST_BEGINS
    at = begins + 2 * HOUR
    oracle = Oracle(view, {name: place.lake.read(f"raw/{name}") for name in ("trips", "ends")})
    assert live.values([("lines", (line,)) for line in "abc"], at) == [oracle.values((line,), at) for line in "abc"]
    with pytest.raises(
        WindowsLost, match=r"hold the days from 2024-03-11 04:00:00\+00:00 on, and .* look back to 2024-03"
    ):
        live.values([("lines", ("a",))], at - timedelta(microseconds=1))


def test_what_this_process_delivered_itself_is_not_looked_for_again(tmp_path: Path) -> None:
    place, delivered = Place(tmp_path), Delivered()
    tiles = followed_before(PROJECT, place.lake, tmp_path / "before.db")
    rows = {table: place.lake.read(f"raw/{table}", first=LAST, last=LAST) for table in VIEWS["lines"].sources}
    for table, day in rows.items():
        assert delivered.left(table, day).equals(day)
        delivered.note(table, day[: day.height // 2].drop(PARTITION))
        delivered.note(table, day[day.height // 2 : -1].select(sorted(day.columns)))
    once = FollowedOnce(PROJECT, delivered)
    some = once.follow("a", VIEWS["lines"], place.lake, tiles, [LAST], NOW)
    other = LiveViews([VIEWS["lines"]], followed_before(PROJECT, place.lake, tmp_path / "other.db"))
    assert some == sum(other.apply(table, day[-1:]) for table, day in rows.items()) > 0
    again = once.follow("b", VIEWS["lines"], place.lake, tiles, [LAST], NOW)  # in another run all is looked for
    assert again > 0


def test_what_was_delivered_before_the_store_was_begun_is_looked_for_again(tmp_path: Path) -> None:
    """The windows were lost at noon, and filled again at once: what this process had delivered went with them."""
    place, delivered, noon = Place(tmp_path), Delivered(), LAST_BEGINS + 12 * HOUR
    for table in VIEWS["lines"].sources:
        delivered.note(table, place.lake.read(f"raw/{table}", first=LAST, last=LAST))
    tiles = followed_before(PROJECT, place.lake, tmp_path / "before.db", noon)
    live, asked = followed(PROJECT, tiles, lambda: NOW), [("lines", (line,)) for line in "abcd"]
    says = r"may lack what became known between 2024-03-11 04:00:00\+00:00 and 2024-03-11 16:00:00\+00:00"
    with pytest.raises(WindowsLost, match=says):
        live.values(asked, noon + HOUR)
    Following(tiles, NOW).finish({"lines": (micros(LAST_BEGINS), micros(noon))})  # as bring-back says, of today
    FollowedOnce(PROJECT, delivered).follow("a", VIEWS["lines"], place.lake, tiles, [LAST], NOW)
    oracle = Oracle(VIEWS["lines"], raw())
    assert live.values(asked, NOW) == [oracle.values((line,), NOW) for line in "abcd"]


def test_history_that_is_missing_is_named(tmp_path: Path) -> None:
    lake, view = Lake(str(tmp_path)), VIEWS["lines"]
    late = [day for day in days_between(STARTS, LAST) if day >= date(2024, 3, 10)]
    with pytest.raises(
        MissingHistory, match="raw/trips begins with no day at all, but its features look back to 2024-03-08"
    ):
        rows_of_days(view, PROJECT, lake, LAST, LAST, GRID)
    for name in ("trips", "ends"):
        lake.replace(f"raw/{name}", dated(raw()[name]).filter(pl.col(PARTITION).is_in(late)), late)
    # The window is 26 hours long: the day before is enough for the last day's rows but not for those of the day before.
    says = (
        "raw/trips begins with 2024-03-10, but its features look back to 2024-03-07; materialize raw/trips from "
        "2024-03-07 on first"
    )
    with pytest.raises(MissingHistory, match=says):
        rows_of_days(view, PROJECT, lake, date(2024, 3, 10), LAST, GRID)


def test_the_first_days_of_a_project_have_no_history_to_miss(grown: Place) -> None:
    first = rows_of_days(VIEWS["lines"], PROJECT, grown.lake, STARTS, STARTS, GRID)
    assert first.height > 0
    assert set(first[PARTITION]) == {STARTS}


def test_an_empty_reference_table_gives_no_row(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.replace("raw/places", raw()["places"].clear(), None)
    found = rows_of_reference(VIEWS["places"], PROJECT, lake, datetime(2024, 3, 9, 12, 30, tzinfo=UTC), GRID)
    assert found.columns == ["place", AS_OF, "seats", PARTITION]
    assert found.is_empty()


def test_a_reference_row_counts_from_when_it_was_known(grown: Place) -> None:
    lake = grown.lake
    before = rows_of_reference(VIEWS["places"], PROJECT, lake, day_start(STARTS + timedelta(days=2), NEW_YORK), GRID)
    after = rows_of_reference(VIEWS["places"], PROJECT, lake, day_start(LAST, NEW_YORK), GRID)
    # "y" has no value, as if it were not there: its row would say nothing that an absent one does not.
    assert (before["seats"].to_list(), after.sort(AS_OF)["seats"].to_list()) == ([5], [5, 6])


def test_recall_reads_as_far_back_as_a_value_may_depend_on(grown: Place) -> None:
    start = day_start(date(2024, 3, 10), NEW_YORK)
    assert recall_needed(VIEWS["places"], GRID) is None
    assert recall_needed(VIEWS["trip_past"], GRID) == timedelta(days=1)
    alone = read_for_recall([VIEWS["trip_past"]], PROJECT, grown.lake, start, start, GRID)
    assert set(alone["trips"][PARTITION]) == {date(2024, 3, 9), date(2024, 3, 10)}
    both = read_for_recall(VIEWS.values(), PROJECT, grown.lake, start, start, GRID)
    assert min(both["trips"][PARTITION]) == min(both["ends"][PARTITION]) == date(2024, 3, 7)
    assert both["places"].height == 3
