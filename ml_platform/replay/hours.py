"""One hour of the replay: what became known, what was asked and what was learned, in the order of time."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby

import polars as pl

from ml_platform.features.follow import Delivered
from ml_platform.features.live_view import micros
from ml_platform.features.live_whole import Following
from ml_platform.monitoring.performance import FOLLOWED_FOR
from ml_platform.replay.traffic import Question, questions, truths
from ml_platform.serving.client import Answers, Client
from ml_platform.serving.events import Ingestor, Prepared
from ml_platform.sources.ingest import Batch, fetch, read_references
from ml_platform.spec import KNOWN_AT, MissingHistory, Project, Service, SourceError, SourceTable
from ml_platform.spec.calendar import day_of, day_start, days_between
from ml_platform.spec.request_views import request_fields
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.prediction_log import PredictionLog, Truth

HOUR = timedelta(hours=1)
_TICK = timedelta(microseconds=1)  # known_at in (after, now] is known_at in [after + tick, now + tick)
_CONNECTIONS = 3  # enough to keep the service busy
_LABELS_A_POST = 500  # or the service's own limit of rows, if that is lower
_REACH = FOLLOWED_FOR + timedelta(days=3)  # truths are awaited for so long, and some days


@dataclass(frozen=True)
class Delivery:
    """An hour on its way to the service."""

    done: Future[tuple[int, int]]

    def wait(self) -> tuple[int, int]:
        """Wait until all of it is answered; returns how many questions and how many truths.

        Raises:
            ServiceError: the service refused or failed.
        """
        return self.done.result()


class Hours:
    """Keeps what is still to be asked or learned in memory and moves it forward, hour by hour.

    Every step may be repeated after a kill: an event that is delivered again changes nothing, and what the log holds
    is not asked or posted again.
    """

    def __init__(
        self,
        project: Project,
        service: Service,
        lake: Lake,
        log: PredictionLog,
        ingestor: Ingestor,
        delivered: Delivered,
    ) -> None:
        """The recent rows are read at the first step. ``delivered``: where it notes what it applied."""
        self.project = project
        self.service = service
        spec = project.models[service.model]
        self.task, self._fields = spec.task, tuple(request_fields(project.views_of(spec)))
        self.lake, self.log, self.ingestor, self.delivered = lake, log, ingestor, delivered
        self.tables = [table for table in project.tables.values() if table.partitioned]
        self._references = {table.name: read_references(table, lake) for table in self.tables}
        self._kept: dict[str, pl.DataFrame] = {}
        self._arrived: dict[str, pl.DataFrame] = {}
        self._resumed = True
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="hours")
        self._askers = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="questions")

    def ingest(self, after: datetime, now: datetime) -> None:
        """Fetch and judge what became known in (after, now], by the function that the raw assets call.

        The raw tables themselves are written when the day is closed. A replay that goes on where it was stopped
        fetches the day from its midnight on, since nobody knows which of its events had been delivered.

        Raises:
            SourceError: a source could not be read; nothing of the hour was done.
        """
        timezone = self.project.timezone
        resumed = not self._kept
        if resumed:
            self._kept = {name: self._recent(name, after) for name in (self.task.spine, self.task.label.table)}
        first, last = day_of(after, timezone), day_of(now, timezone)
        for table in self.tables:
            batch = self._fetch(table, first, last, None if resumed else after, now)
            if batch is None or batch.good.is_empty():
                self._arrived.pop(table.name, None)
            else:
                self._arrived[table.name] = batch.good.select(*table.columns).sort(KNOWN_AT, *table.key)
            if table.name not in self._kept:
                continue
            kept = self._kept[table.name]
            if resumed:
                kept = kept.filter(pl.col(PARTITION) < first)
            elif first != last:
                kept = kept.filter(self._still_needed(table.name, now))
            if batch is not None:
                kept = pl.concat([kept, batch.good.select(kept.columns)])
            self._kept[table.name] = kept.sort(KNOWN_AT)

    def _fetch(
        self, table: SourceTable, first: date, last: date, after: datetime | None, now: datetime
    ) -> Batch | None:
        """The rows of these days, judged, without those known at ``after``; None if the source gave none."""
        try:
            if after and table.read(after + _TICK, now + _TICK).is_empty():
                return None
            references = self._references[table.name]
            admit = self.ingestor.admit
            return fetch(table, first, last, now, self.project.timezone, references, after=after, admit=admit)
        except (OSError, SourceError) as error:
            raise SourceError(
                f"raw/{table.name} could not be read as of {now.isoformat()}: {error}\nMend the source and run the "
                f"same command again; it goes on with this hour."
            ) from error

    def _still_needed(self, table: str, now: datetime) -> pl.Expr:
        """Rows known of late; of the things predicted also those that are still to come, however long known."""
        recent = pl.col(PARTITION) >= day_of(now - _REACH, self.project.timezone)
        if table != self.task.spine:
            return recent
        return recent | (self.task.derive.get(self.task.happens_at, pl.col(self.task.happens_at)) >= now - _REACH)

    def _recent(self, table: str, now: datetime) -> pl.DataFrame:
        if not self.lake.exists(f"raw/{table}"):
            raise MissingHistory(f"raw/{table} was never written; delete the state folder and run again")
        return self.lake.scan(f"raw/{table}").filter(self._still_needed(table, now)).collect()

    def deliver(self, client: Client, before: datetime, now: datetime, served_from: datetime) -> Delivery:
        """Begin with the hour (before, now]: its events, the questions of [before, now) and the truths, in order.

        Questions of the same moment share a request. Meanwhile the next hour can be fetched.
        """
        asked = questions(self.task, self._kept[self.task.spine], before, now, self._fields)
        learned = truths(
            self.task, self._kept[self.task.spine], self._kept[self.task.label.table], before, now, served_from
        )
        resumed_at = before if self._resumed else None
        if self._resumed:
            days = days_between(day_of(before, self.project.timezone), day_of(now, self.project.timezone))
            answered, posted = (
                set().union(*(self.log.ids(self.service.name, day, stream) for day in days))
                for stream in ("predictions", "labels")
            )
            asked = [(row, asked_at) for row, asked_at in asked if row[self.task.key] not in answered]
            learned = [truth for truth in learned if truth.prediction_id not in posted]
            self._resumed = False
        return Delivery(self._sender.submit(self._send, client, dict(self._arrived), asked, learned, now, resumed_at))

    def _send(
        self,
        client: Client,
        arrived: Mapping[str, pl.DataFrame],
        asked: list[Question],
        learned: list[Truth],
        now: datetime,
        resumed_at: datetime | None,
    ) -> tuple[int, int]:
        """A question leaves when every event known by then is applied; it need not be answered before the next event,
        since a window is computed as of the moment asked."""
        left = {name: _Events(rows[KNOWN_AT], self.ingestor.prepare(name, rows)) for name, rows in arrived.items()}
        waiting: list[Future[Answers]] = []
        if resumed_at is not None:
            self._catch_up(left, resumed_at, now)
        try:
            for moment, group in groupby(asked, key=lambda question: question[1]):
                self._apply(left, moment, waiting)
                together = [row for row, _ in group]
                for start in range(0, len(together), self.service.max_rows):
                    rows = together[start : start + self.service.max_rows]
                    waiting.append(self._askers.submit(client.predict, rows, moment))
            self._apply(left, now, waiting)
            for name, whole in arrived.items():
                self.delivered.note(name, whole)
            wait_for(waiting)
        finally:
            for answer in waiting:
                answer.cancel()
        most = min(_LABELS_A_POST, self.service.max_rows)
        for start in range(0, len(learned), most):
            client.label(learned[start : start + most])
        return len(asked), len(learned)

    def _catch_up(self, left: Mapping[str, "_Events"], until: datetime, now: datetime) -> None:
        """Bring in what the day held until it was resumed: fetched from its midnight on, it makes the windows whole."""
        following = Following(self.ingestor.live.tiles, now)
        self._apply(left, until, [])
        midnight = day_start(day_of(until, self.project.timezone), self.project.timezone)
        following.finish(dict.fromkeys(self.ingestor.live.views, (micros(midnight), micros(until))))

    def _apply(self, left: Mapping[str, "_Events"], until: datetime, waiting: list[Future[Answers]]) -> None:
        """The part of a stream's consumer: apply the events that are known by then and were not applied yet.

        They were judged when they were fetched.
        """
        arrived = {name: rows for name, events in left.items() if (rows := events.take(until)) is not None}
        if any(self.ingestor.replaces_values(name) for name in arrived):
            wait_for(waiting)  # a stored value is not as of an earlier moment any more
        with self.ingestor.live.tiles.together():
            for rows in arrived.values():
                self.ingestor.apply_prepared(rows)

    def close(self) -> None:
        """End the threads."""
        self._sender.shutdown(wait=True, cancel_futures=True)
        self._askers.shutdown(wait=True, cancel_futures=True)


class _Events:
    """Rows in the order in which they became known, evaluated together and taken from the front."""

    def __init__(self, known: pl.Series, rows: Prepared) -> None:
        self.known, self.rows, self.taken = known.to_physical().to_numpy(), rows, 0

    def take(self, until: datetime) -> Prepared | None:
        """Those known by ``until`` that were not taken yet; None if there are none."""
        start, self.taken = self.taken, int(self.known.searchsorted(micros(until), side="right"))
        return self.rows.part(start, self.taken) if start < self.taken else None


def wait_for(answers: list[Future[Answers]]) -> None:
    """Wait until all are answered.

    Raises:
        ServiceError: the service refused or failed.
    """
    while answers:
        answers.pop().result()
