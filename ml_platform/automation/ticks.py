"""The driver of replayed ticks: evaluates the conditions at a moment and makes exactly what they ask for.

It does what Dagster's daemon does live (the same conditions, one run for each partition that is asked for), only at a
given moment and in this process.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.events import RunFailureReason
from dagster._core.execution.execute_in_process import core_execute_in_process, merge_run_tags
from dagster._core.utils import make_new_run_id

from ml_platform.automation.freshness import judge
from ml_platform.automation.partitions import RANGE_END_TAG, RANGE_START_TAG
from ml_platform.automation.runs import clock_tags, marked_if_interrupted
from ml_platform.spec import StateError

# A day needs about five evaluations, each more day to catch up on one; beyond that, conditions chase each other.
MOST_EVALUATIONS = 40
_QUIET: Mapping[str, object] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

Requested = tuple[dg.AssetKey, str | None]


@dataclass(frozen=True, kw_only=True)
class StepFailure:
    """A step of a run that failed, with the error's message."""

    step: str
    message: str


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """One run: what it was to make, for which partition (``first..last`` for a range), and what failed.

    work_seconds: inside the assets' steps; the rest of ``seconds`` is orchestration.
    """

    run_id: str
    keys: tuple[dg.AssetKey, ...]
    partition: str | None
    seconds: float
    work_seconds: float = 0.0
    failures: tuple[StepFailure, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether every step did."""
        return not self.failures


@dataclass(frozen=True, kw_only=True)
class TickResult:
    """What one tick asked for and made. Save ``cursor`` now, after the runs, and hand it to the next tick."""

    cursor: str
    requested: list[Requested] = field(default_factory=list)
    runs: list[RunReport] = field(default_factory=list)
    evaluations: int = 0
    evaluation_seconds: float = 0.0
    run_seconds: float = 0.0


def tick(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    at: datetime,
    cursor: str | None,
    *,
    on_run: Callable[[RunReport], None] | None = None,
) -> TickResult:
    """Evaluate at ``at`` and make what is asked for, again and again until nothing more is.

    When all is quiet, freshness is judged at ``at``; what a verdict asks for is made, too. A failed run does not stop
    the tick: it stands in the result, and the conditions keep from going on behind it.

    Raises:
        StateError: the conditions did not come to rest.
    """
    requested: list[Requested] = []
    runs: list[RunReport] = []
    evaluation_seconds = 0.0
    for evaluations in range(1, MOST_EVALUATIONS + 1):
        started = time.perf_counter()
        wanted, cursor = evaluate(definitions, instance, at, cursor)
        judged = not wanted and judge(definitions, instance, at)
        evaluation_seconds += time.perf_counter() - started
        if not wanted and not judged:
            seconds = sum(run.seconds for run in runs)
            return TickResult(
                cursor=cursor, requested=requested, runs=runs, evaluations=evaluations,
                evaluation_seconds=evaluation_seconds, run_seconds=seconds,
            )  # fmt: skip
        requested += wanted
        for day, keys in _by_partition(wanted):
            runs.append(materialize(definitions, instance, keys, at=at, day=day))
            if on_run:
                on_run(runs[-1])
    again = sorted({key.to_user_string() for key, _ in wanted})
    raise StateError(
        f"the automation conditions asked for more after {MOST_EVALUATIONS} evaluations at {at.isoformat()}, last for "
        f"{', '.join(again)}; the evaluation tree of these assets in the UI shows which reason stays true"
    )


def evaluate(
    definitions: dg.Definitions, instance: dg.DagsterInstance, at: datetime, cursor: str | None
) -> tuple[list[Requested], str]:
    """What the conditions ask for at ``at``, and the cursor for the next evaluation."""
    result = dg.evaluate_automation_conditions(
        defs=definitions,
        instance=instance,
        asset_selection=dg.AssetSelection.all(),
        evaluation_time=at.astimezone(UTC),
        cursor=dg.deserialize_value(cursor, AssetDaemonCursor) if cursor else None,
    )
    graph = definitions.resolve_asset_graph()
    wanted = [
        (key, day)
        for key in graph.toposorted_asset_keys
        for day in sorted(result.get_requested_partitions(key), key=lambda day: day or "")
    ]
    return wanted, dg.serialize_value(result.cursor)


def materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    *,
    at: datetime,
    day: str | None = None,
    days: tuple[date, date] | None = None,
) -> RunReport:
    """One run in this process at the replayed moment ``at``, of one day, a range of days, or without partition.

    Raises:
        KeyboardInterrupt: Ctrl-C hit the run; it is marked, so that what it did not make is asked for again.
    """
    tags = dict(clock_tags(at))
    if days:
        tags |= {RANGE_START_TAG: days[0].isoformat(), RANGE_END_TAG: days[1].isoformat()}
    job = _job_for(definitions.resolve_implicit_global_asset_job_def(), frozenset(keys))
    run_id = make_new_run_id()
    started = time.perf_counter()
    # Inside the run, mappings to "the last partition" must see the replay's present.
    with (
        dg.partition_loading_context(effective_dt=at.astimezone(UTC), dynamic_partitions_store=instance),
        marked_if_interrupted(instance, run_id),
    ):
        result = core_execute_in_process(
            job=InMemoryJob(job_def=job),
            run_config=_QUIET,
            instance=instance,
            output_capturing_enabled=False,
            raise_on_error=False,
            run_tags=merge_run_tags(job, day, tags, list(keys), instance, _QUIET),
            run_id=run_id,
            asset_selection=frozenset(keys),
        )
        if _was_cut_off(result):
            # Dagster turns Ctrl-C into a failed run; the driver must stop instead of going on to the next one.
            raise KeyboardInterrupt
    return RunReport(
        run_id=result.run_id,
        keys=tuple(keys),
        partition=f"{days[0]}..{days[1]}" if days else day,
        seconds=time.perf_counter() - started,
        work_seconds=sum(e.step_success_data.duration_ms for e in result.all_events if e.is_step_success) / 1000,
        failures=tuple(_failures(result)),
    )


@lru_cache(maxsize=32)
def _job_for(job: dg.JobDefinition, keys: frozenset[dg.AssetKey]) -> dg.JobDefinition:
    """The job of these assets alone, in-process. A day asks for the same ones as the day before, and building the job
    and its snapshot takes as long as a few steps."""
    return job.as_ephemeral_job(resource_defs={}, input_values={}, asset_selection=list(keys))


def materialize_range(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: Iterable[dg.AssetKey],
    first: date,
    last: date,
    *,
    at: datetime,
    on_run: Callable[[RunReport], None] | None = None,
) -> list[RunReport]:
    """Make ``keys`` for all days in [first, last]: the bootstrap. Stops behind the first run that failed.

    One run over the range for the daily assets, runs without partition before and after it for the others, in the
    order of the graph.
    """
    runs = []
    for daily, group in _stages(definitions, frozenset(keys)):
        runs.append(materialize(definitions, instance, group, at=at, days=(first, last) if daily else None))
        if on_run:
            on_run(runs[-1])
        if not runs[-1].succeeded:
            break
    return runs


def _stages(definitions: dg.Definitions, keys: frozenset[dg.AssetKey]) -> list[tuple[bool, list[dg.AssetKey]]]:
    """The fewest alternating groups of unpartitioned and daily assets that keep the graph's order.

    What stands behind a skippable output gets a later run: in the same run it would be skipped with it.
    """
    graph = definitions.resolve_asset_graph()
    stage: dict[dg.AssetKey, int] = {}
    for key in graph.toposorted_asset_keys:
        if key in keys:
            above = [parent for parent in graph.get(key).parent_keys if parent in stage]
            after = max((stage[parent] + int(_skippable(definitions, parent)) for parent in above), default=0)
            daily = graph.get(key).partitions_def is not None
            stage[key] = after if after % 2 == int(daily) else after + 1
    groups = (
        (n % 2 == 1, [key for key in stage if stage[key] == n]) for n in range(max(stage.values(), default=0) + 1)
    )
    return [(daily, group) for daily, group in groups if group]


def _skippable(definitions: dg.Definitions, key: dg.AssetKey) -> bool:
    return definitions.resolve_asset_graph().get(key).assets_def.get_asset_spec(key).skippable


def _by_partition(wanted: Iterable[Requested]) -> list[tuple[str | None, list[dg.AssetKey]]]:
    """One group a partition, the oldest day first, what has no partition last."""
    groups: dict[str | None, list[dg.AssetKey]] = {}
    for key, day in wanted:
        groups.setdefault(day, []).append(key)
    return sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or ""))


def _was_cut_off(result: dg.ExecuteInProcessResult) -> bool:
    return any(
        event.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION
        for event in result.all_events
        if event.event_type is dg.DagsterEventType.RUN_FAILURE
    )


def _failures(result: dg.ExecuteInProcessResult) -> list[StepFailure]:
    failures = []
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            failures.append(StepFailure(step=event.step_key or "", message=cause.message.strip() if cause else ""))
    if not failures and not result.success:
        failures.append(StepFailure(step="", message=f"run {result.run_id} failed outside its steps; see its log"))
    return failures
