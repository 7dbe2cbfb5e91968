"""One hour of the replay, by the same plain functions that the assets call."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl

from ml_platform.features.assets import GRID
from ml_platform.features.refresh import is_daily, read_frames
from ml_platform.features.windows import feature_rows, history_needed
from ml_platform.monitoring.performance import FOLLOWED_FOR
from ml_platform.replay.traffic import questions, truths
from ml_platform.serving.client import Answers, Client
from ml_platform.sources.ingest import fetch, read_references
from ml_platform.spec import KNOWN_AT, FeatureView, Project, Service, SourceError, SourceTable
from ml_platform.spec.calendar import day_of, day_start, days_between
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.prediction_log import PredictionLog

HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)  # known_at in (after, now] is known_at in [after + tick, now + tick)
_LABELS_A_POST = 500  # or the service's own limit of rows, if that is lower


@dataclass(frozen=True)
class Asking:
    """Questions on their way."""

    answers: Future[list[Answers]]
    count: int

    def wait(self) -> int:
        """Wait until all are answered; returns how many.

        Raises:
            ServiceError: the service refused or failed.
        """
        self.answers.result()
        return self.count


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
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="questions")

    def ingest(self, after: datetime, now: datetime) -> None:
        """Fetch and judge what became known in (after, now], by the function that the raw assets call.

        The raw tables themselves are written when the day is closed: until then the rows stay in memory, and a killed
        replay fetches the day again. Features go on with the rows that broke no rule.

        Raises:
            SourceError: a source could not be read; nothing of the hour was done.
        """
        timezone = self.project.timezone
        resumed = not self._frames
        if resumed:
            self._frames = self._recent(after)
        first, last = day_of(after, timezone), day_of(now, timezone)
        for table in self.tables:
            rows = self._fetch(table, first, last, None if resumed else after, now)
            kept = self._frames[table.name]
            if resumed:
                kept = kept.filter(pl.col(PARTITION) < first)
            if first != last:
                kept = kept.filter(self._still_needed(table.name, now))
            if rows is not None:
                kept = pl.concat([kept, rows.select(kept.columns)])
            self._frames[table.name] = kept.sort(KNOWN_AT)

    def _fetch(
        self, table: SourceTable, first: date, last: date, after: datetime | None, now: datetime
    ) -> pl.DataFrame | None:
        """The good rows of these days, without those known at ``after``; None if the source gave none."""
        try:
            if after and table.read(after + _TICK, now + _TICK).is_empty():
                return None
            references = self._references[table.name]
            return fetch(table, first, last, now, self.project.timezone, references, after=after).good
        except (OSError, SourceError) as error:
            raise SourceError(
                f"raw/{table.name} could not be read as of {now.isoformat()}: {error}\nMend the source and run the "
                f"same command again; it goes on with this hour."
            ) from error

    def _still_needed(self, table: str, now: datetime) -> pl.Expr:
        """Rows known of late; of the things predicted also those that are still to come, however long known."""
        recent = pl.col(PARTITION) >= day_of(now - self._reach, self.project.timezone)
        if table != self.task.spine:
            return recent
        return recent | (self.task.derive.get(self.task.happens_at, pl.col(self.task.happens_at)) >= now - self._reach)

    def _recent(self, now: datetime) -> dict[str, pl.DataFrame]:
        frames = read_frames(
            self.views,
            self.project,
            self.lake,
            day_start(day_of(now, self.project.timezone), self.project.timezone),
            now,
            GRID,
        )
        for table in self.tables:
            if table.name not in frames or table.name in (self.task.spine, self.task.label.table):
                frames[table.name] = (
                    self.lake.scan(f"raw/{table.name}").filter(self._still_needed(table.name, now)).collect()
                )
        return {name: frame.sort(KNOWN_AT) for name, frame in frames.items()}

    @property
    def _reach(self) -> timedelta:
        """How far back the rows in memory go: the longest window or wait for truths, and some days."""
        return max([FOLLOWED_FOR, *(view.lookback for view in self.views)]) + timedelta(days=3)

    def learn(self, client: Client, after: datetime, now: datetime, served_from: datetime) -> int:
        """Post the truths that became known in (after, now]; returns how many."""
        found = truths(
            self.task, self._frames[self.task.spine], self._frames[self.task.label.table], after, now, served_from
        )
        if self._resumed:
            days = days_between(day_of(after, self.project.timezone), day_of(now, self.project.timezone))
            posted = set().union(*(self.log.ids(self.service.name, day, "labels") for day in days))
            found = [truth for truth in found if truth.prediction_id not in posted]
        most = min(_LABELS_A_POST, self.service.max_rows)
        for start in range(0, len(found), most):
            client.label(found[start : start + most])
        return len(found)

    def changed(self, now: datetime) -> dict[str, pl.DataFrame]:
        """The feature rows, by view, that changed since the last step and up to ``now``."""
        midnight = day_start(day_of(now, self.project.timezone), self.project.timezone)
        start = self._published_to + GRID if self._published_to else midnight
        self._published_to = now
        return {
            view.name: feature_rows(view, self._within(view, start), start, now + GRID, GRID) for view in self.views
        }

    def _within(self, view: FeatureView, start: datetime) -> dict[str, pl.DataFrame]:
        """The rows that this view looks back on; a plan's rows are in reach by their time, however long known."""
        first = start - history_needed(view, GRID) - GRID
        frames = {}
        for name in view.sources:
            frame = self._frames[name]
            if name == view.source and view.time != KNOWN_AT:
                time = view.derive.get(view.time, pl.col(view.time))
                frames[name] = frame.filter(pl.max_horizontal(time, KNOWN_AT) >= first)
            else:
                known = frame[KNOWN_AT].to_physical().to_numpy()  # no copy
                frames[name] = frame.slice(int(known.searchsorted((first - _EPOCH) // _TICK)))
        return frames

    def publish(self, rows: Mapping[str, pl.DataFrame], now: datetime) -> int:
        """Put changed rows into the online store; returns entities published."""
        return sum(self.online.publish(self.project.views[name], rows[name], now) for name in rows if rows[name].height)

    def ask(self, client: Client, now: datetime) -> Asking:
        """Begin to send every question of [now, now + 1 h), each as its own request.

        They must be answered before anything newer is published; until then the next hour can be prepared.
        """
        found = questions(self.task, self._frames[self.task.spine], now, now + HOUR)
        if self._resumed:
            days = days_between(day_of(now, self.project.timezone), day_of(now + HOUR, self.project.timezone))
            answered = set().union(*(self.log.ids(self.service.name, day) for day in days))
            found = [(row, asked_at) for row, asked_at in found if row[self.task.key] not in answered]
            self._resumed = False
        return Asking(self._sender.submit(client.predict_many, found), len(found))

    def close(self) -> None:
        """End the sending thread."""
        self._sender.shutdown(wait=True, cancel_futures=True)
