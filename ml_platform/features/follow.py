"""From raw rows to the live windows: what the stream delivers, and what a closed day repairs."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta

import polars as pl

from ml_platform.features.corrections import versions_of
from ml_platform.features.live import LiveViews
from ml_platform.features.live_view import EPOCH, KEPT_BEHIND, TICK, micros
from ml_platform.features.live_whole import BEGINNING, Following, looks_back_to
from ml_platform.features.refresh import is_daily
from ml_platform.spec import KNOWN_AT, Active, FeatureView, Project
from ml_platform.spec.calendar import day_of, day_start, days_between
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.tiles import TileStore


def followed(project: Project, tiles: TileStore, now: Callable[[], datetime]) -> LiveViews:
    """All views of the project whose windows are computed when they are asked; ``now``: the platform's present."""
    return LiveViews(_followed_views(project), tiles, now)


def _followed_views(project: Project) -> list[FeatureView]:
    return [view for view in project.views.values() if view.is_live and is_daily(view, project)]


def follow_days(
    view: FeatureView, project: Project, lake: Lake, tiles: TileStore, days: Sequence[date], now: datetime
) -> int:
    """Bring the closed days' raw rows into the live windows, as far as these still look back on them.

    Where the windows lack days before (their store lost its data, or never had them) these are brought in, too. After a
    stream that lost nothing it finds nothing to do; returns how many tiles it had to write.

    Raises:
        WindowsLost: the store lost its data meanwhile.
    """
    return _bring(view, project, lake, Following(tiles, now), days) if view.is_live else 0


def _bring(view: FeatureView, project: Project, lake: Lake, following: Following, days: Sequence[date]) -> int:
    since = _kept_from(days, project)
    low = looks_back_to(view, micros(since))
    (start, end), read_from = bounds(days, project), days[0]
    if not following.standing.goes_on(view.name, low):
        start, read_from = _whole_since(view, project, lake, days, low)
    frames = {table: lake.read(f"raw/{table}", first=read_from, last=days[-1]) for table in view.sources}
    frames = within_reach(view, frames, since)
    live = LiveViews([view], following.tiles)
    written = sum(live.apply(table, rows, since=since) for table, rows in frames.items())
    live.keep_from(since)
    if start < end:
        following.finish({view.name: (start, end)})
    return written


def bounds(days: Sequence[date], project: Project) -> tuple[int, int]:
    """When these consecutive days begin and end, unix microseconds."""
    first, last = (day_start(day, project.timezone) for day in (days[0], days[-1] + timedelta(days=1)))
    return micros(first), micros(last)


def _whole_since(view: FeatureView, project: Project, lake: Lake, days: Sequence[date], low: int) -> tuple[int, date]:
    """Since when (unix microseconds) the raw tables miss no day up to the last one, and from which day on to read."""
    held = {table: lake.days(f"raw/{table}") for table in view.sources if project.tables[table].partitioned}
    oldest = min((min(some) for some in held.values() if some), default=days[0])
    needed = oldest if low == BEGINNING else day_of(EPOCH + low * TICK, project.timezone)
    first = max(min(needed, days[0]), oldest)
    missing = [
        day
        for table in always_filled(view, project)
        for day in days_between(max(first, min(held[table], default=first)), days[-1])
        if day not in held[table]
    ]
    if missing:
        return bounds([max(missing)], project)[1], first
    return (BEGINNING if first == oldest else bounds([first], project)[0]), first


def always_filled(view: FeatureView, project: Project) -> list[str]:
    """The daily raw tables that the view is made of, but for those whose source may give nothing for a day."""
    tables = [project.tables[table] for table in view.sources]
    return [table.name for table in tables if table.partitioned and not table.may_be_empty]


class Delivered:
    """Rows that this very process has brought into the live windows, so that it need not look for them there.

    Of each a hash of all its values, until the day that they belong to was followed.
    """

    def __init__(self) -> None:
        """Nothing is known of what others delivered."""
        self._hashes: dict[str, list[pl.Series]] = {}

    def note(self, table: str, rows: pl.DataFrame) -> None:
        """Say so once the rows of a raw table, all its columns, are written for good."""
        self._hashes.setdefault(table, []).append(_hashes(rows))

    def left(self, table: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Those that it did not deliver, all if that is not known; what it delivered of the table is forgotten."""
        noted = self._hashes.pop(table, [])
        return rows.filter(~_hashes(rows).is_in(pl.concat(noted).implode())) if noted else rows


def _hashes(rows: pl.DataFrame) -> pl.Series:
    return rows.select(sorted(name for name in rows.columns if name != PARTITION)).hash_rows()


class FollowedOnce:
    """Closed days brought into the live windows by one asset for all: of one run, each table's day once.

    Views share their tables, and to remember its facts takes as long for one view as for ten.
    """

    def __init__(self, project: Project, delivered: Delivered | None = None) -> None:
        """``delivered``: what this process has brought into the same windows itself."""
        self.project, self.delivered = project, delivered or Delivered()
        self._run, self._done = ("", ""), set[tuple[str, date]]()

    def follow(
        self, run: str, view: FeatureView, lake: Lake, tiles: TileStore, days: Sequence[date], now: datetime
    ) -> int:
        """As ``follow_days``; a day alone is brought into the other views of the same tables, too.

        run: within the same one, a table's day that was followed is not looked at again.

        Raises:
            WindowsLost: the store lost its data meanwhile.
        """
        if not view.is_live:
            return 0
        following, since = Following(tiles, now), _kept_from(days, self.project)
        standing = following.standing
        if len(days) > 1 or not standing.goes_on(view.name, looks_back_to(view, micros(since))):
            return _bring(view, self.project, lake, following, days)  # of months, each view needs but a part
        if (run, standing.life) != self._run:
            self._run, self._done = (run, standing.life), set()
        (day,), span, written = days, bounds(days, self.project), 0
        live = LiveViews(_followed_views(self.project), tiles)
        for table in view.sources:
            if (table, day) not in self._done:
                rows = lake.read(f"raw/{table}", first=day, last=day)
                left = self.delivered.left(table, rows)
                # What was delivered before the store was begun is not in it any more.
                written += live.apply(table, left if standing.began <= span[0] else rows, since=since)
                self._done.add((table, day))
        live.keep_from(since)
        following.finish({view.name: span})
        return written


def _kept_from(days: Sequence[date], project: Project) -> datetime:
    """The earliest moment that is still asked for once these days are closed."""
    return day_start(days[-1] + timedelta(days=1), project.timezone) - KEPT_BEHIND


def within_reach(view: FeatureView, frames: Mapping[str, pl.DataFrame], since: datetime) -> dict[str, pl.DataFrame]:
    """The rows that a value at ``since`` or later can depend on: of months of history, mostly few.

    A plan is in reach by the time that it is for, however long it is known; and so is what closes it.
    """
    oldest = since - view.lookback
    actives = [feature for feature in view.features if isinstance(feature, Active)]
    moments = [view.derive.get(name, pl.col(name)) for name in {view.time, *(a.opened_at for a in actives)}]
    reached = frames[view.source].filter(pl.max_horizontal(*moments, KNOWN_AT) > oldest)
    reached = versions_of(view.key, reached, frames[view.source])
    found = {view.source: reached}
    opened = reached.with_columns(**view.derive)
    for table in view.sources[1:]:
        rows = frames[table]
        # An opening that was known before these days is not among them: what closes it is known of late, too.
        late = pl.col(KNOWN_AT) > oldest - KEPT_BEHIND
        keys = [list(active.key) for active in actives if table in active.closed_by]
        closes = [rows.filter(~late).join(opened, on=key, how="semi") for key in keys]
        found[table] = pl.concat([rows.filter(late), *closes]).unique(maintain_order=True)
    return found
