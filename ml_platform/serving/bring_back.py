"""Brings back what is served (live windows, newest values) after its store lost it: `ml-platform bring-back`.

The closed days come from the raw tables, and what is known of the days after them from the sources, which are taken at
their word: what one of them does not give of today is missing until the day is closed. Doing it again changes nothing,
and events may arrive meanwhile.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import click
import polars as pl

from ml_platform.features.follow import always_filled, bounds, follow_days
from ml_platform.features.live import LiveViews
from ml_platform.features.live_view import micros
from ml_platform.features.live_whole import BEGINNING, Following
from ml_platform.features.refresh import GRID, is_daily, rows_of_reference
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.events import newest_values
from ml_platform.sources.admission import Admission, Admit
from ml_platform.sources.ingest import fetch, read_references
from ml_platform.spec import FeatureView, Project, UnknownName
from ml_platform.spec.calendar import day_of, days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import forgotten_in
from ml_platform.stores.home import Home
from ml_platform.stores.online import Online, online_store
from ml_platform.stores.tiles import TileStore
from ml_platform.stores.tiles_redis import tile_store

_A_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class BringBack:
    """The stores that answer, and what they are filled from as of ``now``. admit: leaves out what was forgotten."""

    project: Project
    lake: Lake
    tiles: TileStore
    online: Online
    admit: Admit
    now: datetime

    @classmethod
    def of(cls, profile: Profile) -> "BringBack":
        """With the stores of the profile."""
        project = load_project(profile.project)
        return cls(
            project=project,
            lake=Lake(profile.lake, profile.storage_options),
            tiles=tile_store(profile.redis_url, profile.live_path, project.name),
            online=online_store(profile.online_address, project.name),
            admit=Admission(project, forgotten_in(profile.home)),
            now=Clock(profile.clock_path).now(),
        )

    def run(self, names: Sequence[str] = ()) -> Iterator[str]:
        """Fill the stores for these views (all if none are named); a sentence for each one that is done.

        Raises:
            UnknownName: there is no such view.
            SourceError: a source could not be read; the closed days are back.
            WindowsLost: the store lost its data meanwhile.
        """
        for name in names:
            if name not in self.project.views:
                raise UnknownName("feature view", name, self.project.views)
        views = [self.project.views[name] for name in dict.fromkeys(names or self.project.views)]
        live = [view for view in views if view.is_live and is_daily(view, self.project)]
        stored = [view for view in views if not view.is_live and is_daily(view, self.project)]
        closed = {view.name: last_held(view, self.project, self.lake, self.now) for view in (*live, *stored)}
        following = Following(self.tiles, self.now)  # what is lost from here on is noticed at the end
        written = {view.name: self._follow(view, closed[view.name]) for view in live}
        fresh = self._fresh(closed)
        for view in live:
            own = LiveViews([view], self.tiles)
            counts = sum(own.apply(table, fresh[table]) for table in view.sources)
            following.finish({view.name: (sources_asked_from(closed[view.name], self.project), micros(self.now))})
            yield f"{view.name}: {written[view.name] + counts:,} tiles of live windows were not as they should be"
        for view in views:
            if view not in live:
                yield f"{view.name}: newest values of {self._publish(view, fresh):,} entities published"

    def _follow(self, view: FeatureView, last: date | None) -> int:
        if last is None:
            return 0
        daily = [table for table in view.sources if self.project.tables[table].partitioned]
        first = min(day for table in daily for day in self.lake.days(f"raw/{table}"))
        days = days_between(first, last)
        return follow_days(view, self.project, self.lake, self.tiles, days, self.now)

    def _fresh(self, closed: Mapping[str, date | None]) -> dict[str, pl.DataFrame]:
        """By table what its source gives, as far as known, of all days that one of its views has not closed."""
        first: dict[str, date] = {}
        for name, last in closed.items():
            begins = self.project.starts if last is None else last + _A_DAY
            for table in self.project.views[name].sources:
                first[table] = min(begins, first.get(table, begins))
        return {
            table: fresh_rows(self.project, self.lake, table, day, self.admit, self.now) for table, day in first.items()
        }

    def _publish(self, view: FeatureView, fresh: Mapping[str, pl.DataFrame]) -> int:
        table = f"raw/{view.source}"
        if is_daily(view, self.project):
            new = fresh[view.source]
            held = [self.lake.scan(table).select(new.columns).collect()] if self.lake.exists(table) else []
            rows = newest_values(view, pl.concat([*held, new]))
        elif self.lake.exists(table):
            rows = rows_of_reference(view, self.project, self.lake, self.now, GRID)
        else:
            return 0
        return self.online.publish(view, rows, self.now) if rows.height else 0


def fresh_rows(project: Project, lake: Lake, name: str, first: date, admit: Admit, now: datetime) -> pl.DataFrame:
    """What a table's source gives of the days from ``first`` on, as far as known, judged as on the way into the lake.

    Raises:
        SourceError: the source could not be read.
    """
    table, today = project.tables[name], day_of(now, project.timezone)
    references = read_references(table, lake)
    batch = fetch(table, min(first, today), today, now, project.timezone, references, admit=admit)
    return batch.good.select(list(table.columns))


def last_held(view: FeatureView, project: Project, lake: Lake, now: datetime) -> date | None:
    """The last closed day that all of the view's raw tables hold, but for those that may be empty; None: no day."""
    today = day_of(now, project.timezone)
    held = [lake.days(f"raw/{table}") for table in always_filled(view, project) or [view.source]]
    newest = [max((day for day in days if day < today), default=None) for days in held]
    return None if None in newest else min(day for day in newest if day is not None)


def sources_asked_from(last: date | None, project: Project) -> int:
    """From when on rows come from the sources, unix microseconds."""
    return BEGINNING if last is None else bounds([last], project)[1]


@click.command("bring-back")
@click.argument("views", nargs=-1)
def bring_back(views: tuple[str, ...]) -> None:
    """Fill live windows and newest values of VIEWS (all, if none are named) again, after their store lost its data.

    Closed days come from the raw tables, today from the sources. The service may answer and consumers may apply events
    meanwhile; without a loss it changes nothing.
    """
    profile = Profile.from_environment()
    home = Home(profile.home)
    home.prepare(profile.project)
    with home.locked("bring-back"):
        for done in BringBack.of(profile).run(views):
            click.echo(done)
