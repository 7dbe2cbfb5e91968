"""From raw rows to the live windows: what the stream delivers, and what a closed day repairs."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

import polars as pl

from ml_platform.features.corrections import versions_of
from ml_platform.features.live import LiveViews
from ml_platform.features.live_view import KEPT_BEHIND
from ml_platform.features.refresh import is_daily
from ml_platform.spec import KNOWN_AT, Active, FeatureView, Project
from ml_platform.spec.calendar import day_start
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.tiles import TileStore


def followed(project: Project, tiles: TileStore) -> LiveViews:
    """All views of the project whose windows are computed when they are asked."""
    return LiveViews((view for view in project.views.values() if is_daily(view, project)), tiles)


def follow_days(view: FeatureView, project: Project, lake: Lake, tiles: TileStore, days: Sequence[date]) -> int:
    """Bring the closed days' raw rows into the live windows, as far as these still look back on them.

    After a stream that lost nothing it finds nothing to do; returns how many tiles it had to write.
    """
    if not view.is_live:
        return 0
    since = _kept_from(days, project)
    frames = {table: lake.read(f"raw/{table}", first=days[0], last=days[-1]) for table in view.sources}
    frames = within_reach(view, frames, since)
    live = LiveViews([view], tiles)
    written = sum(live.apply(table, rows, since=since) for table, rows in frames.items())
    live.keep_from(since)
    return written


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
        self._run, self._done = "", set[tuple[str, date]]()

    def follow(self, run: str, view: FeatureView, lake: Lake, tiles: TileStore, days: Sequence[date]) -> int:
        """As ``follow_days``; a day alone is brought into the other views of the same tables, too.

        run: within the same one, a table's day that was followed is not looked at again.
        """
        if not view.is_live or len(days) > 1:  # of months, each view needs but a part
            return follow_days(view, self.project, lake, tiles, days)
        if run != self._run:
            self._run, self._done = run, set()
        (day,), written = days, 0
        since = _kept_from(days, self.project)
        live = followed(self.project, tiles)
        for table in view.sources:
            if (table, day) not in self._done:
                rows = self.delivered.left(table, lake.read(f"raw/{table}", first=day, last=day))
                written += live.apply(table, rows, since=since)
                self._done.add((table, day))
        live.keep_from(since)
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
