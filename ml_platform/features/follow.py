"""From raw rows to the live windows: what the stream delivers, and what a closed day repairs."""

from collections.abc import Sequence
from datetime import date, timedelta

from ml_platform.features.live import KEPT_BEHIND, LiveViews, micros
from ml_platform.features.refresh import is_daily
from ml_platform.spec import FeatureView, Project
from ml_platform.spec.calendar import day_of, day_start
from ml_platform.stores.delta import Lake
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
    end = day_start(days[-1] + timedelta(days=1), project.timezone)
    since = end - KEPT_BEHIND
    first = max(days[0], day_of(since - view.lookback, project.timezone))
    live = LiveViews([view], tiles)
    written = sum(
        live.apply(table, lake.scan(f"raw/{table}", first=first, last=days[-1]).collect(), since=since)
        for table in view.sources
    )
    tiles.prune(micros(since))
    return written
