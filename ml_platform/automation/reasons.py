"""The single reasons that the named conditions are made of; each is one line of the UI's evaluation tree.

All are level-triggered: they look at the record (`history.py`), not at what changed since the last evaluation.
"""

import weakref
from abc import abstractmethod
from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.assets.graph.asset_graph import executable_in_same_run

from ml_platform.automation.gates import (
    LOOKS_BACK,
    blocking_checks_passed,
    columns_hold,
    reads_any,
    refused_before,
    refused_on,
    unjudged,
)
from ml_platform.automation.history import History

# A failed attempt is repeated by the next daily tick, which comes 23 hours later when clocks go forward.
RETRY_AFTER = timedelta(hours=20)

_histories: weakref.WeakKeyDictionary[AssetGraphView, History] = weakref.WeakKeyDictionary()


def history_of(view: AssetGraphView) -> History:
    """The record, read once an evaluation (Dagster makes one view for each)."""
    if view not in _histories:
        _histories[view] = History(view)
    return _histories[view]


class Target:
    """One partition of the evaluated asset (``day`` is None where it has none), and what it is made from."""

    def __init__(self, context: "dg.AutomationContext[dg.AssetKey]", day: str | None) -> None:
        self.context, self.key, self.day = context, context.key, day
        self.history = history_of(context.asset_graph_view)
        self.past = self.history.past(self.key, day)

    def parents(self) -> list[dg.AssetKey]:
        """The upstream assets that are made here (what comes from outside has no record)."""
        graph = self.context.asset_graph
        return [key for key in sorted(graph.get(self.key).parent_keys) if graph.get(key).is_materializable]

    def requested(self, parent: dg.AssetKey) -> set[str | None]:
        """The partitions of ``parent`` that this evaluation asks for already."""
        subset = self.context.request_subsets_by_key.get(parent)
        if subset is None or subset.is_empty:
            return set()
        return set(subset.expensively_compute_partition_keys()) if subset.is_partitioned else {None}

    def made_with(self, parent: dg.AssetKey) -> bool:
        """Whether this evaluation's run for this partition makes the parent's partition, too, before this one."""
        return self.day in self.requested(parent) and executable_in_same_run(self.context.asset_graph, self.key, parent)


class Reason(dg.AutomationCondition[dg.AssetKey]):
    """Base: asks ``_holds`` for every candidate partition."""

    @property
    def requires_cursor(self) -> bool:
        """Nothing is remembered from one evaluation to the next."""
        return False

    says: str

    @property
    def name(self) -> str:
        """The line in the UI's evaluation tree."""
        return self.says

    @abstractmethod
    def _holds(self, target: Target) -> bool:
        """Whether it is true of one partition."""

    def days(self, context: "dg.AutomationContext[dg.AssetKey]") -> Iterator[str]:
        """The candidate partitions, oldest first; only recent ones can be candidates."""
        candidates = context.candidate_subset.expensively_compute_partition_keys()
        return (day for day in history_of(context.asset_graph_view).days(context.key) if day in candidates)

    def evaluate(self, context: "dg.AutomationContext[dg.AssetKey]") -> "dg.AutomationResult[dg.AssetKey]":
        """Dagster's entry."""
        subset = context.candidate_subset
        if subset.is_partitioned and not subset.is_empty:
            true = {day for day in self.days(context) if self._holds(Target(context, day))}
            if true != set(self.days(context)):
                subset = subset.compute_intersection_with_partition_keys(true) if true else context.get_empty_subset()
        elif not subset.is_empty and not self._holds(Target(context, None)):
            subset = context.get_empty_subset()
        return dg.AutomationResult(context, subset)


class Recent(Reason):
    """The partition is one of the last days that catching up looks at (``count`` of them)."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.says = f"one of the last {count} closed days" if count > 1 else "the last closed day"

    def evaluate(self, context: "dg.AutomationContext[dg.AssetKey]") -> "dg.AutomationResult[dg.AssetKey]":
        """All candidates at once: this is the one reason that sees every partition there is."""
        subset = context.candidate_subset
        if subset.is_partitioned and not subset.is_empty:
            days = history_of(context.asset_graph_view).days(context.key)[-self.count :]
            subset = subset.compute_intersection_with_partition_keys(set(days)) if days else context.get_empty_subset()
        return dg.AutomationResult(context, subset)

    def _holds(self, target: Target) -> bool:
        return target.day is None or target.day in target.history.days(target.key)[-self.count :]


class NeverTried(Reason):
    """It was neither made nor tried."""

    says = "never made, never tried"

    def _holds(self, target: Target) -> bool:
        return target.past.made is None and target.past.tried is None


class Outdated(Reason):
    """Something that it is made from was updated by another run since it was last tried, or will be in this one.

    parents: only these; ``None``: all that are partitioned as ``partitioned`` says.
    with_requests: whether a parent that is made in the same run counts before it is made.
    """

    def __init__(self, *parents: dg.AssetKey, partitioned: bool | None = None, with_requests: bool = True) -> None:
        self.only, self.partitioned, self.with_requests = frozenset(parents), partitioned, with_requests
        kind = {None: "anything upstream", True: "a daily upstream", False: "an unpartitioned upstream"}[partitioned]
        whose = ", ".join(key.to_user_string() for key in sorted(parents)) or kind
        self.says = f"{whose} was updated since the last attempt"

    def followed(self, target: Target) -> list[dg.AssetKey]:
        """The parents whose updates count."""
        if self.only:
            return [key for key in target.parents() if key in self.only]
        wanted = self.partitioned
        return [key for key in target.parents() if wanted is None or target.history.partitioned(key) == wanted]

    def _holds(self, target: Target) -> bool:
        return any(
            (self.with_requests and target.made_with(parent)) or self._missed(target, parent)
            for parent in self.followed(target)
        )

    def _missed(self, target: Target, parent: dg.AssetKey) -> bool:
        above = (target.history.past(parent, day) for day in target.history.days_above(target.key, target.day, parent))
        return any(past.made is not None and target.past.misses(past.made) for past in above)


def lately(history: History, at: datetime) -> bool:
    """Whether an attempt at that moment has still to wait for its daily repetition.

    An attempt by hand on replayed state carries the wall clock, which lies after the replay's: it need not.
    """
    return at <= history.now < at + RETRY_AFTER


class FailedBefore(Reason):
    """Its last attempt failed on an earlier day, or was cut off by a kill; not merely because its upstream failed."""

    says = "the last attempt failed on an earlier day, or was interrupted"

    def _holds(self, target: Target) -> bool:
        failed_at = target.history.failed_at(target.past)
        if failed_at is None or lately(target.history, failed_at):
            return False
        return all(target.made_with(parent) or not self._failed_with(target, parent) for parent in target.parents())

    def _failed_with(self, target: Target, parent: dg.AssetKey) -> bool:
        """Whether the parent failed in the same run: then it is for the parent to be tried again first."""
        own = target.past.in_vain
        above = (target.history.past(parent, day) for day in target.history.days_above(target.key, target.day, parent))
        return any(
            own and past.in_vain and past.in_vain.run_id == own.run_id and target.history.failed_at(past)
            for past in above
        )


class Unjudged(Reason):
    """It was made, and a kill fell before its checks ended: it is made again, as only that judges it as it is."""

    says = "the attempt was interrupted before its checks, or these failed to run on an earlier day"

    def _holds(self, target: Target) -> bool:
        made, history = target.past.made, target.history
        if made is None or not unjudged(target.context.asset_graph_view, history, target.key, target.day):
            return False
        return history.interrupted(made) or not lately(history, history.moment(made))


class RefusedBefore(Reason):
    """Columns of it were refused when it was made, on an earlier day: its source may have been mended since."""

    says = "columns of it were refused on an earlier day"

    def _holds(self, target: Target) -> bool:
        made, history = target.past.made, target.history
        if made is None or lately(history, history.moment(made)):
            return False
        return bool(refused_on(target.context.asset_graph_view, history, target.key, target.day))


class Mended(Reason):
    """It was made while a day that it looks back on, or a column of it, was refused; that day has been mended since."""

    says = "a day that it looks back on was refused then, and is mended"

    def _holds(self, target: Target) -> bool:
        handled, reach = target.past.tried or target.past.made, self._reach(target)
        if handled is None or target.day is None or not reach:
            return False
        days = target.history.days(target.key)
        before = days[max(0, days.index(target.day) - reach) : days.index(target.day)]
        return any(self._mended(target, parent, day, handled.id) for parent in target.parents() for day in before)

    def _reach(self, target: Target) -> int:
        told = target.context.asset_graph.get(target.key).metadata.get(LOOKS_BACK)
        return int(getattr(told, "value", told) or 0)

    def _mended(self, target: Target, parent: dg.AssetKey, day: str, handled: int) -> bool:
        view, history = target.context.asset_graph_view, target.history
        made = history.past(parent, day).made
        if made is None or made.id < handled or not columns_hold(view, history, target.key, parent, day):
            return False
        return any(
            at < handled and reads_any(view, target.key, parent, columns)
            for at, columns in refused_before(view, history, parent, day)
        )


class NewCode(Reason):
    """It was made by another code version than today's."""

    says = "made by another code version"

    def _holds(self, target: Target) -> bool:
        version = target.context.asset_graph.get(target.key).code_version
        event = target.context.asset_graph_view.instance.get_latest_materialization_event(target.key)
        if version is None or event is None or event.asset_materialization is None or target.past.in_vain:
            return False
        made_by = (event.asset_materialization.tags or {}).get("dagster/code_version")
        return made_by is not None and made_by != version


class NotTriedSinceVerdict(Reason):
    """It was not tried since its freshness got its present verdict: one attempt for each warning and failure."""

    says = "not tried since the freshness verdict"

    def _holds(self, target: Target) -> bool:
        record = target.context.asset_graph_view.instance.get_freshness_state_records([target.key]).get(target.key)
        touched = target.history.last_touched(target.key)
        return record is not None and (touched is None or touched < record.updated_at)


class Ready(Reason):
    """What it is made from is there (or made before it in the same run), its blocking checks passed, none is under way.

    Nor is a column that it reads refused, by ``sources.columns``; what reads none of the refused ones begins. Of a
    daily parent, an unpartitioned asset needs the last closed day.
    optional: parents that need not exist.
    """

    def __init__(self, *optional: dg.AssetKey) -> None:
        self.optional = frozenset(optional)

    says = "everything upstream is there, checked and at rest"

    def _holds(self, target: Target) -> bool:
        return all(target.made_with(parent) or self._ready(target, parent) for parent in target.parents())

    def _ready(self, target: Target, parent: dg.AssetKey) -> bool:
        history = target.history
        above = history.days_above(target.key, target.day, parent)
        if history.busy(parent) or target.requested(parent) & set(above):
            return False
        needed = above if target.day is not None or not history.partitioned(parent) else above[-1:]
        if parent in self.optional:
            needed = [day for day in needed if history.past(parent, day).made is not None]
        return all(
            history.past(parent, day).made is not None
            and blocking_checks_passed(target.context.asset_graph_view, history, parent, day)
            and columns_hold(target.context.asset_graph_view, history, target.key, parent, day)
            for day in needed
        )


class AtRest(Reason):
    """No run that is queued or going on is about to make it."""

    says = "no attempt is under way"

    def _holds(self, target: Target) -> bool:
        return not target.history.busy(target.key)


class OldestFirst(Reason):
    """Of the days that are left, the oldest: catching up goes day by day, since windows look back."""

    says = "the oldest of these days"

    def _holds(self, target: Target) -> bool:
        return target.day is None or target.day == next(self.days(target.context))
