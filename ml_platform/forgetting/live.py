"""What is served at any moment, made anew from the raw tables: live windows, and newest values of stored views.

An event that is gone stands in the windows of every entity that its row names, and a stored value may come from it. So
all views that follow a table with such rows are made anew, from what the tables hold then and what their sources give
of the days that are not closed yet. Until that is done the windows answer nothing, and nobody works with the folder.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

import polars as pl

from ml_platform.features.follow import follow_days
from ml_platform.features.live import LiveViews
from ml_platform.features.live_facts import facts_log
from ml_platform.features.live_view import KEPT_BEHIND, micros
from ml_platform.features.live_whole import Following, forget_followed
from ml_platform.features.refresh import GRID, is_daily, rows_of_reference
from ml_platform.forgetting.places import Held
from ml_platform.forgetting.subject import Subject
from ml_platform.serving.bring_back import fresh_rows, last_held, sources_asked_from
from ml_platform.serving.events import newest_values
from ml_platform.sources.admission import Admit
from ml_platform.spec import FeatureView
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.delta import Lake
from ml_platform.stores.delta_purge import current_rows
from ml_platform.stores.online import Online
from ml_platform.stores.online_purge import OnlinePurge
from ml_platform.stores.tiles import Change, TileStore, Wanted
from ml_platform.stores.tiles_purge import TilePurge

_A_DAY = timedelta(days=1)
_NEVER = 1 << 62  # unix microseconds, far beyond every moment that is asked about


@dataclass(frozen=True)
class Windows:
    """The live windows of the entity itself, and the tiles of others that hold an event of its rows."""

    tiles: TileStore | None
    purged: TilePurge
    lake: Lake
    subject: Subject
    title: ClassVar[str] = "live windows"

    def held(self) -> Iterator[Held]:
        """See ``Place.held``; the rows of days that are not closed yet are not known here."""
        if self.tiles is None:
            return
        own = self.purged.holding(self.subject.entity.name, self.subject.entity.text)
        if own:
            yield Held(place="live windows", count=own, what="logs of its own")
        looking = _Looking(self.tiles)
        live = LiveViews(followers(self.subject)[0], looking)
        for table in self.subject.tables:
            name = f"raw/{table}"
            rows = current_rows(self.lake, name, self.subject.gone(name)) if self.lake.exists(name) else pl.DataFrame()
            live.apply(table, rows)
        if looking.found:
            yield Held(place="live windows, tiles", count=len(looking.found), what="tiles with events of its rows")

    def purge(self) -> None:
        """See ``Place.purge``; ``make_anew`` does it, once the raw tables are purged."""


class _Looking:
    """A store of tiles that is only looked at: which of them hold already what a change would bring in."""

    def __init__(self, tiles: TileStore) -> None:
        self.read, self.found = tiles.read, set[tuple[str, bytes, int]]()

    def update(self, changes: Sequence[Change]) -> int:
        """Changes nothing."""
        wanted = [Wanted(c.log, c.entity, c.tile, c.tile, (c.tile,)) for c in changes]
        for change, held in zip(changes, self.read(wanted), strict=True):
            events = held.events.get(change.tile)
            if events is not None and change.make(events) is None:
                self.found.add((change.log, change.entity, change.tile))
        return 0

    def pack(self, wanted: Sequence[Wanted]) -> None:
        """Nobody asks a server through this."""

    def together(self) -> AbstractContextManager[None]:
        """Nothing is changed."""
        return nullcontext()

    def prune(self, before: int) -> None:
        """Removes nothing."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """The stores that answer, and what they are made of. admit: leaves out the rows that hold what was forgotten."""

    lake: Lake
    tiles: TileStore
    tile_purge: TilePurge
    online: Online
    online_purge: OnlinePurge
    admit: Admit
    now: datetime


def followers(subject: Subject) -> tuple[list[FeatureView], list[FeatureView]]:
    """The views that follow a table which can hold the entity: those with live windows, those with stored values."""
    tables, project = set(subject.tables), subject.project
    found = [view for view in project.views.values() if tables & set(view.sources)]
    live = [view for view in found if view.is_live and is_daily(view, project)]
    return live, [view for view in found if view not in live]


def whole_from(subject: Subject, tiles: TileStore) -> int | None:
    """Since when the windows answer, to be kept while they are made anew."""
    return LiveViews(followers(subject)[0], tiles).whole_from()


def make_anew(subject: Subject, served: Served, reach: int | None) -> None:
    """Clear and fill the windows and the stored values; ``reach``: since when the windows answered before.

    Raises:
        SourceError: a source could not be read; nothing is answered from the windows until this was repeated.
    """
    live, stored = followers(subject)
    fresh = {table: _fresh(subject, served, table) for table in {t for view in (*live, *stored) for t in view.sources}}
    _windows(subject, served, live, fresh, reach)
    for view in stored:
        served.online_purge.clear(view)
        rows = _stored_rows(subject, served, view, fresh[view.source])
        if not rows.is_empty():
            served.online.publish(view, rows, served.now)


def _windows(
    subject: Subject, served: Served, views: Sequence[FeatureView], fresh: dict[str, pl.DataFrame], reach: int | None
) -> None:
    if not views:
        return
    windows = LiveViews(views, served.tiles)
    windows.set_whole_from(_NEVER)
    forget_followed(served.tiles, windows.views)
    # What is remembered of other tables' facts holds nothing of the entity, and views that are left alone need it.
    others = {facts_log(view.source) for view in views if view.source not in subject.tables}
    served.tile_purge.clear(log for log in windows.logs if log not in others)
    kept_from = [reach] if reach is not None else []
    following = Following(served.tiles, served.now)
    for view in views:
        own, last = LiveViews([view], served.tiles), last_held(view, subject.project, served.lake, served.now)
        days = {table: served.lake.days(f"raw/{table}") for table in view.sources}
        if last is not None:
            closed = days_between(min(min(some) for some in days.values() if some), last)
            follow_days(view, subject.project, served.lake, served.tiles, closed, served.now)
        for table in view.sources:
            if days[table]:
                kept_from.append(micros(day_start(max(days[table]) + _A_DAY, subject.project.timezone) - KEPT_BEHIND))
                own.apply(table, served.lake.read(f"raw/{table}", first=last and last + _A_DAY))
            own.apply(table, fresh[table])
        following.finish({view.name: (sources_asked_from(last, subject.project), micros(served.now))})
    windows.set_whole_from(max(kept_from, default=-_NEVER))


def _fresh(subject: Subject, served: Served, table: str) -> pl.DataFrame:
    """What the source gives of the days after those that the raw table holds, judged as they are on their way in."""
    project = subject.project
    if not project.tables[table].partitioned:
        return pl.DataFrame(schema=dict(project.tables[table].columns))
    held = served.lake.days(f"raw/{table}")
    # A table none of whose days was closed yet has sent events all the same.
    first = max(held) + _A_DAY if held else project.starts
    return fresh_rows(project, served.lake, table, first, served.admit, served.now)


def _stored_rows(subject: Subject, served: Served, view: FeatureView, fresh: pl.DataFrame) -> pl.DataFrame:
    table = f"raw/{view.source}"
    if not served.lake.exists(table):
        return pl.DataFrame()
    if not is_daily(view, subject.project):
        return rows_of_reference(view, subject.project, served.lake, served.now, GRID)
    rows = served.lake.scan(table).select(fresh.columns).collect()
    return newest_values(view, pl.concat([rows, fresh]))
