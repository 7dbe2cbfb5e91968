"""One hour of the replay, by the same plain functions that the assets call."""

from datetime import datetime, timedelta

import polars as pl

from ml_platform.features.assets import GRID
from ml_platform.features.refresh import is_daily, read_frames
from ml_platform.features.windows import feature_rows
from ml_platform.replay.traffic import questions, truths
from ml_platform.serving.client import Client
from ml_platform.sources.ingest import ingest, read_references
from ml_platform.spec import ContractBroken, Project, Service
from ml_platform.spec.calendar import day_of, day_start, days_between
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.prediction_log import PredictionLog

HOUR = timedelta(hours=1)
_LABELS_A_POST = 500  # below every service's limit of rows


class Hours:
    """Keeps the recent raw rows in memory and moves them forward, hour by hour.

    Every step may be repeated after a kill: ingesting replaces the day, publishing is newest-wins, and what the log
    holds is not asked or posted again.
    """

    def __init__(self, project: Project, service: Service, lake: Lake, online: OnlineStore, log: PredictionLog) -> None:
        """The recent rows are read at the first step."""
        self.project = project
        self.service = service
        self.task = project.models[service.model].task
        self.lake, self.online, self.log = lake, online, log
        self.views = [view for view in project.views.values() if is_daily(view, project)]
        self.tables = [table for table in project.tables.values() if table.partitioned]
        self._references = {table.name: read_references(table, lake) for table in self.tables}
        self._frames: dict[str, pl.DataFrame] = {}
        self._published_to: datetime | None = None
        self._resumed = True

    def ingest(self, after: datetime, now: datetime) -> None:
        """Bring in what became known in (after, now]. A refused batch leaves the hour without its rows, as live."""
        timezone = self.project.timezone
        if not self._frames:
            self._frames = self._recent(after)
        first, last = day_of(after, timezone), day_of(now, timezone)
        for table in self.tables:
            try:
                batch = ingest(table, self.lake, first, last, now, timezone, references=self._references[table.name])
            except ContractBroken:
                continue  # the day's asset will fail with the same words; the features go on with what is there
            oldest = day_of(now - self._reach, timezone)
            kept = self._frames[table.name].filter((pl.col(PARTITION) < first) & (pl.col(PARTITION) >= oldest))
            self._frames[table.name] = pl.concat([kept, batch.good.select(kept.columns)])

    def _recent(self, now: datetime) -> dict[str, pl.DataFrame]:
        frames = read_frames(self.views, self.project, self.lake, day_start(day_of(now, self.project.timezone), self.project.timezone), now, GRID)
        first = day_of(now - self._reach, self.project.timezone)
        for name in (self.task.spine, self.task.label.table):
            frames[name] = self.lake.scan(f"raw/{name}", first=first).collect()
        for table in self.tables:
            if table.name not in frames:
                frames[table.name] = self.lake.scan(f"raw/{table.name}", first=first).collect()
        return frames

    @property
    def _reach(self) -> timedelta:
        """How far back the rows in memory go: the longest window, a grid step, and two days for late truths."""
        return max(view.lookback for view in self.views) + timedelta(days=3)

    def learn(self, client: Client, after: datetime, now: datetime, served_from: datetime) -> int:
        """Post the truths that became known in (after, now]; returns how many."""
        found = truths(self.task, self._frames[self.task.spine], self._frames[self.task.label.table], after, now, served_from)
        if self._resumed:
            days = days_between(day_of(after, self.project.timezone), day_of(now, self.project.timezone))
            posted = set().union(*(self.log.ids(self.service.name, day, "labels") for day in days))
            found = [truth for truth in found if truth.prediction_id not in posted]
        for start in range(0, len(found), _LABELS_A_POST):
            client.label(found[start : start + _LABELS_A_POST])
        return len(found)

    def refresh(self, now: datetime) -> int:
        """Publish the feature values that changed up to ``now``; returns entities published."""
        midnight = day_start(day_of(now, self.project.timezone), self.project.timezone)
        start = self._published_to + GRID if self._published_to else midnight
        published = 0
        for view in self.views:
            rows = feature_rows(view, self._frames, start, now + GRID, GRID)
            published += self.online.publish(view, rows, now) if rows.height else 0
        self._published_to = now
        return published

    def ask(self, client: Client, now: datetime) -> int:
        """Send every question of [now, now + 1 h), each as its own request; returns how many."""
        found = questions(self.task, self._frames[self.task.spine], now, now + HOUR)
        if self._resumed:
            days = days_between(day_of(now, self.project.timezone), day_of(now + HOUR, self.project.timezone))
            answered = set().union(*(self.log.ids(self.service.name, day) for day in days))
            found = [(row, asked_at) for row, asked_at in found if row[self.task.key] not in answered]
            self._resumed = False
        client.predict_many(found)
        return len(found)
