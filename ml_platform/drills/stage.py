"""A stage for drills: a state folder of its own that reads the real lake, with windows as of a day in the past."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from ml_platform.features.follow import follow_days
from ml_platform.features.refresh import table_name
from ml_platform.features.windows import AS_OF, history_needed
from ml_platform.resources.profiles import Profile
from ml_platform.spec import MissingHistory, Project, Service
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.delta import Lake
from ml_platform.stores.home import Home
from ml_platform.stores.online import online_store
from ml_platform.stores.tiles_redis import tile_store


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The real state (``base``), a folder that plays are made in, and the days that are played."""

    base: Profile
    folder: Path
    project: Project
    service: Service
    days: tuple[date, ...]

    @property
    def lake(self) -> Lake:
        """The real one; nothing here writes to it."""
        return Lake(self.base.lake, self.base.storage_options)

    @property
    def _template(self) -> Profile:
        return self._at("template")

    def _at(self, name: str) -> Profile:
        """Everything local is the play's own, but the registry, which all plays share, and the lake."""
        profile = Profile.at(self.folder / name, project=self.base.project)
        return replace(profile, lake=self.base.lake, storage_options=self.base.storage_options)

    def prepare(self) -> None:
        """Bring windows and stored values to where they were when the first day began."""
        profile = self._template
        Home(profile.home).prepare(profile.project)
        # Where a service of the play looks for it, as it knows no more than its home.
        registry = self.folder / "registry"
        registry.mkdir()
        (profile.home / "mlflow").symlink_to(registry, target_is_directory=True)
        begin = day_start(self.days[0], self.project.timezone)
        spec = self.project.models[self.service.model]
        views = self.project.feature_views_of(spec)
        tiles = tile_store(None, profile.live_path, self.project.name)
        online = online_store(profile.online_path, self.project.name)
        for view in views:
            if view.is_live:
                reach = history_needed(view, timedelta(hours=1)) + timedelta(days=4)
                first = max(self.project.starts, (begin - reach).date())
                days = days_between(first, self.days[0] - timedelta(days=1))
                follow_days(view, self.project, self.lake, tiles, days, begin)
                continue
            rows = self.lake.scan(table_name(view)).filter(pl.col(AS_OF) <= begin).collect()
            online.publish(view, rows, begin)

    def play(self, name: str) -> Profile:
        """A fresh state folder as of the first day's beginning."""
        profile, template = self._at(name), self._template
        shutil.copytree(template.home, profile.home, symlinks=True)
        return profile


@contextmanager
def stage(base: Profile, project: Project, service: Service, days: int) -> Iterator[Stage]:
    """A stage for the last so many days that were served and judged; it is removed at the end.

    Raises:
        MissingHistory: nothing was served yet, or not for so long.
    """
    lake = Lake(base.lake, base.storage_options)
    table = f"predictions/{service.name}"
    if not lake.exists(table):
        raise MissingHistory(f"{table} is not there yet; a drill plays days again that were served: `ml-platform run`")
    served = lake.scan(table).select("known_date").unique().collect()["known_date"].sort()
    closed = [day for day in served if day is not None][:-1]  # the last one's truths may not be there
    if len(closed) < days:
        raise MissingHistory(
            f"{len(closed)} days of service {service.name} are closed, and the drill plays {days}; let "
            f"`ml-platform run` go on, or choose --days"
        )
    with TemporaryDirectory(prefix="ml_platform_drill_") as folder:
        made = Stage(base=base, folder=Path(folder), project=project, service=service, days=tuple(closed[-days:]))
        made.prepare()
        yield made
