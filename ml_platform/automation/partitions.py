"""The one partitioning: days of the project's timezone, each closed at the midnight that ends it."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from ml_platform.spec import DeclarationError, Project
from ml_platform.spec.calendar import day_of, days_between

RANGE_START_TAG = ASSET_PARTITION_RANGE_START_TAG
RANGE_END_TAG = ASSET_PARTITION_RANGE_END_TAG


def daily(project: Project, clock_at: datetime | None = None) -> dg.DailyPartitionsDefinition:
    """Days from ``project.starts`` to ``project.ends`` (both included; without an end the days go on).

    clock_at: the clock of a replayed state, UTC; no day that is not closed by then exists, so that nothing on that
        state (UI, daemon) can ask for the replay's future. ``None``: the days closed by the moment of evaluation.
    """
    zone = ZoneInfo(project.timezone)
    after_last = project.ends + timedelta(days=1) if project.ends else None
    if clock_at is not None:
        today = day_of(clock_at, project.timezone)
        after_last = min(after_last or today, today)
    first = datetime.combine(project.starts, time(), tzinfo=zone)
    # A definition must not end before it starts: a clock on the first day leaves no partition at all.
    end = datetime.combine(max(after_last, project.starts), time(), tzinfo=zone) if after_last else None
    return dg.DailyPartitionsDefinition(start_date=first, end_date=end, timezone=project.timezone)


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """The days that this run covers, oldest first; a single partition or a range."""
    keys = context.partition_key_range
    return days_between(date.fromisoformat(keys.start), date.fromisoformat(keys.end))


def last_closed(definition: dg.PartitionsDefinition[str], at: datetime, count: int) -> list[str]:
    """The newest ``count`` partitions that exist at ``at``, oldest first.

    Raises:
        DeclarationError: the partitions are not days.
    """
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition) or definition.fmt != "%Y-%m-%d":
        raise DeclarationError(
            f"{definition} are not days; assets are unpartitioned or use automation.partitions.daily"
        )
    with dg.partition_loading_context(effective_dt=at.astimezone(UTC)):
        first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
    if first is None or last is None:
        return []
    newest, oldest = date.fromisoformat(last), date.fromisoformat(first)
    return [day.isoformat() for day in days_between(max(oldest, newest - timedelta(days=count - 1)), newest)]
