"""What the instance knows about every asset's recent partitions: last made, last tried, and how that ended.

The conditions compare event ids of this record instead of remembering edges from tick to tick, so a lost cursor, a
killed tick or a failed run loses nothing. It is read once an evaluation, with two queries for the whole graph.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.partitions.mapping import TimeWindowPartitionMapping
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from ml_platform.automation.partitions import last_closed
from ml_platform.automation.runs import replayed_moment, was_interrupted

# How many days are looked back on: a platform that was down for longer is caught up by a range run on purpose.
CATCH_UP_DAYS = 7
_MADE, _TRIED = dg.DagsterEventType.ASSET_MATERIALIZATION.value, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
_BUSY = frozenset(IN_PROGRESS_RUN_STATUSES) | {dg.DagsterRunStatus.CANCELING}


Refusals = dict[tuple[dg.AssetKey, str], list[tuple[int, frozenset[str]]]]


@dataclass(frozen=True)
class Event:
    """One event of an asset's partition; ids grow with time over all assets, ``at`` is the wall clock (UTC)."""

    id: int
    run_id: str
    at: datetime


@dataclass(frozen=True)
class Past:
    """The newest materialization and the newest attempt (a run that planned it) of an asset's partition."""

    made: Event | None = None
    tried: Event | None = None

    @property
    def in_vain(self) -> Event | None:
        """The newest attempt, if it has not materialized (it may still run, or failed, or skipped its output)."""
        if self.tried is None or (self.made is not None and self.made.run_id == self.tried.run_id):
            return None
        return None if self.made is not None and self.made.id > self.tried.id else self.tried

    def misses(self, update: Event) -> bool:
        """Whether another run updated something upstream after this was last tried.

        Compared with the attempt's beginning, not with what it made: an update that landed while the attempt was
        running may not have been read.
        """
        handled = self.tried or self.made
        return handled is None or (update.id > handled.id and update.run_id != handled.run_id)


class History:
    """The record as one evaluation sees it."""

    def __init__(self, view: AssetGraphView) -> None:
        self._view = view
        self._days: dict[dg.PartitionsDefinition[str], list[str]] = {}
        self._runs: dict[str, dg.RunRecord | None] = {}
        self.checks: dict[tuple[dg.AssetKey, int], dict[str, AssetCheckExecutionRecord]] = {}
        self.refusals: Refusals | None = None
        nodes = [node for node in view.asset_graph.asset_nodes if node.is_materializable]
        self._definitions = {node.key: node.partitions_def for node in view.asset_graph.asset_nodes}
        days = {day for node in nodes for day in self.days(node.key)}
        self._pasts = _read(view.instance, [node.key for node in nodes], days)

    @property
    def now(self) -> datetime:
        """The moment that is evaluated, UTC."""
        return self._view.effective_dt.astimezone(UTC)

    def days(self, key: dg.AssetKey) -> list[str]:
        """The asset's partitions of the last ``CATCH_UP_DAYS`` closed days, oldest first; none if unpartitioned."""
        definition = self._definitions.get(key)
        if definition is None:
            return []
        if definition not in self._days:
            self._days[definition] = last_closed(definition, self.now, CATCH_UP_DAYS)
        return self._days[definition]

    def partitioned(self, key: dg.AssetKey) -> bool:
        """Whether the asset is made day by day."""
        return self._definitions.get(key) is not None

    def past(self, key: dg.AssetKey, day: str | None) -> Past:
        """What happened to a partition (``None``: an unpartitioned asset)."""
        return self._pasts.get((key, day), Past())

    def pasts(self, key: dg.AssetKey) -> list[Past]:
        """Of all recent partitions, oldest first."""
        return [self.past(key, day) for day in self.days(key)] if self.partitioned(key) else [self.past(key, None)]

    def days_above(self, key: dg.AssetKey, day: str | None, parent: dg.AssetKey) -> list[str | None]:
        """The recent partitions of ``parent`` that a partition of ``key`` is made from.

        An unpartitioned asset is made from all recent days of a daily one, whatever its mapping says.
        """
        if not self.partitioned(parent):
            return [None]
        days = self.days(parent)
        if day is None:
            return list(days)
        mapping = self._view.asset_graph.get_partition_mapping(key, parent)
        if isinstance(mapping, TimeWindowPartitionMapping) and day in days:
            at = days.index(day)
            return list(days[max(0, at + mapping.start_offset) : at + mapping.end_offset + 1])
        subset = self._view.get_asset_subset_from_asset_partitions(key, {AssetKeyPartitionKey(key, day)})
        above = self._view.compute_parent_subset(parent, subset).expensively_compute_partition_keys()
        return [day for day in days if day in above]

    def run(self, run_id: str) -> dg.RunRecord | None:
        """A run's record; None if it was deleted."""
        if run_id not in self._runs:
            self._runs[run_id] = self._view.instance.get_run_record_by_id(run_id)
        return self._runs[run_id]

    def busy(self, key: dg.AssetKey) -> bool:
        """Whether a run that is queued or going on has yet to make a recent partition."""
        return any(self.running(past.in_vain.run_id) for past in self.pasts(key) if past.in_vain)

    def running(self, run_id: str) -> bool:
        """Whether the run is queued or going on."""
        run = self.run(run_id)
        return run is not None and run.dagster_run.status in _BUSY

    def interrupted(self, event: Event) -> bool:
        """Whether the event's run was cut off by a kill, or deleted."""
        run = self.run(event.run_id)
        return run is None or was_interrupted(run)

    def failed_at(self, past: Past) -> datetime | None:
        """When the newest attempt failed (its run's moment); None if it did not, or skipped its output on purpose.

        An attempt that was cut off by a kill, or whose run was deleted, failed at the beginning of time.
        """
        if past.in_vain is None:
            return None
        run = self.run(past.in_vain.run_id)
        if run is None or self.interrupted(past.in_vain):
            return datetime.min.replace(tzinfo=UTC)
        if run.dagster_run.status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
            return None
        return replayed_moment(run) or past.in_vain.at

    def last_touched(self, key: dg.AssetKey) -> datetime | None:
        """The moment of the newest attempt or materialization, on the replay's clock where the run carries it."""
        moments = [self.moment(event) for past in self.pasts(key) for event in (past.tried, past.made) if event]
        return max(moments, default=None)

    def moment(self, event: Event) -> datetime:
        """When it happened, on the replay's clock where its run carries it."""
        run = self.run(event.run_id) if event.run_id else None
        return (replayed_moment(run) if run else None) or event.at


def _read(
    instance: dg.DagsterInstance, keys: Collection[dg.AssetKey], days: Collection[str]
) -> dict[tuple[dg.AssetKey, str | None], Past]:
    from ml_platform.automation.event_log import newest_events  # loads SQLAlchemy, which declaring conditions need not

    found: dict[tuple[dg.AssetKey, str | None], dict[str, Event]] = {}
    for row in newest_events(instance, keys, days, (_MADE, _TRIED)):
        found.setdefault((row.key, row.partition), {})[row.kind] = Event(row.id, row.run_id, row.at)
    return {target: Past(made=kinds.get(_MADE), tried=kinds.get(_TRIED)) for target, kinds in found.items()}
