"""What the platform writes on a run: when it took place on the replay's clock, and whether a kill cut it off."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

CLOCK_TAG = "ml_platform/clock"
INTERRUPTED_TAG = "ml_platform/interrupted"


def clock_tags(at: datetime) -> Mapping[str, str]:
    """The tags of a run that takes place at a replayed moment."""
    return {CLOCK_TAG: at.astimezone(UTC).isoformat()}


def replayed_moment(run: dg.RunRecord) -> datetime | None:
    """The replayed moment of a run, None if it was not tagged (a live run, or one started by hand)."""
    stamp = run.dagster_run.tags.get(CLOCK_TAG)
    return datetime.fromisoformat(stamp) if stamp else None


def was_interrupted(run: dg.RunRecord) -> bool:
    """Whether the driver died while it was going on: such a run counts as never tried."""
    return INTERRUPTED_TAG in run.dagster_run.tags


@contextmanager
def marked_if_interrupted(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Mark the run as interrupted when Ctrl-C (or anything else that is no failed step) leaves this block."""
    try:
        yield
    except BaseException:
        if instance.has_run(run_id):
            instance.add_run_tags(run_id, {INTERRUPTED_TAG: "true"})
        raise


def abandon_runs(instance: dg.DagsterInstance) -> list[str]:
    """Close the runs that a killed driver left behind as cancelled, so that they are asked for again; their ids.

    Only runs that carry a replayed moment are touched, and only one driver works on a state folder at a time: when
    it starts, none of them can still be going on.
    """
    # Also one that was planned and not begun: what it planned would count as tried, and never be asked for again.
    unfinished = dg.RunsFilter(statuses=sorted(NOT_FINISHED_STATUSES, key=lambda status: status.value))
    left = [run for run in instance.get_runs(unfinished) if CLOCK_TAG in run.tags]
    for run in left:
        instance.add_run_tags(run.run_id, {INTERRUPTED_TAG: "true"})
        instance.report_run_canceled(run, message="the replay's driver was killed during this run")
    return [run.run_id for run in left]
