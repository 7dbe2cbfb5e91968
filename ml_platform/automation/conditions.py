"""When an asset is made again, in named words.

| condition | for | true when |
|---|---|---|
| ``each_day()`` | daily assets | a closed day is missing, or a daily upstream of that day was updated later |
| ``follows_days()`` | an unpartitioned asset of daily ones | a new day (or a correction) of a daily upstream arrived |
| ``on_alarm(key)`` | a training set | the alarm was raised since it was last tried, or its code changed |
| ``after_upstream()`` | model, evaluation | an unpartitioned upstream was updated |
| ``after_anything()`` | service | anything upstream was updated: an evaluation, or the day's look at its answers |

For all of them: an attempt that failed is repeated once a day, and one that a kill cut off, before its end or before
its checks, at once; a freshness verdict that warns or fails asks for one attempt (of the last day); nothing begins
before everything upstream is there, has passed its blocking checks and is at rest. While columns of a raw table are
refused for a day, what reads these waits and the rest goes on; the table is read again once a day, and once it is
mended the waiting ones are made, and so are later days that look back on it.

They compare the ids of recorded events and keep no memory of their own, so nothing is lost between ticks: not by an
update that lands while the target is running or right after it was requested, nor by a lost cursor.
"""

from typing import cast

import dagster as dg
from dagster._core.definitions.declarative_automation.operators import AndAutomationCondition

from ml_platform.automation.history import CATCH_UP_DAYS
from ml_platform.automation.reasons import (
    AtRest,
    FailedBefore,
    Mended,
    NeverTried,
    NewCode,
    NotTriedSinceVerdict,
    OldestFirst,
    Outdated,
    Ready,
    Recent,
    RefusedBefore,
    Unjudged,
)

Condition = dg.AutomationCondition[dg.AssetKey]


def each_day() -> Condition:
    """Every closed day of the last week once, the oldest first, the whole chain of a day in one evaluation.

    On an unpartitioned asset (a reference table) it means: once, and again when its freshness asks for it.
    """
    again = FailedBefore() | Unjudged() | RefusedBefore() | Mended()
    due = NeverTried() | Outdated(partitioned=True) | again | (Recent(1) & _stale())
    every = Recent(CATCH_UP_DAYS) & due & Ready() & AtRest() & OldestFirst() & _no_backfill()
    return every.with_label("each_day")


def follows_days() -> Condition:
    """Once after each new day of a daily upstream; waits until all its daily upstreams have the last closed day."""
    return _when(Outdated(partitioned=True)).with_label("follows_days")


def on_alarm(alarm: dg.AssetKey, *, new_code: bool = True) -> Condition:
    """When the alarm was raised since this was last tried, or (``new_code``) the code version changed.

    The alarm is an upstream asset that is materialized only while something is wanted. An attempt handles the alarms
    before it, so one alarm gives one attempt, and one that is raised during an attempt gives another.
    """
    raised: Condition = Outdated(alarm, with_requests=False)
    raised = raised | NewCode() if new_code else raised
    return _when(raised, optional=(alarm,)).with_label(f"on_alarm({alarm.to_user_string()})")


def after_upstream(*upstream: dg.AssetKey) -> Condition:
    """When an unpartitioned upstream (one of ``upstream``, if given) was updated, or is made before it in the same run.

    Updates of other upstreams, such as the daily tables that a model reads, do not count.
    """
    return _when(Outdated(*upstream, partitioned=False)).with_label("after_upstream")


def after_anything(*optional: dg.AssetKey) -> Condition:
    """When anything upstream was updated: so at least once after each new day of a daily upstream.

    optional: upstream that need not exist.
    """
    return _when(Outdated(), optional=optional).with_label("after_anything")


def _when(reason: Condition, *, optional: tuple[dg.AssetKey, ...] = ()) -> AndAutomationCondition[dg.AssetKey]:
    return (reason | FailedBefore() | Unjudged() | _stale()) & Ready(*optional) & AtRest() & _no_backfill()


def _stale() -> Condition:
    verdict = dg.AutomationCondition.freshness_warned() | dg.AutomationCondition.freshness_failed()
    return verdict & NotTriedSinceVerdict()


def _no_backfill() -> Condition:
    return cast("Condition", ~dg.AutomationCondition.backfill_in_progress())
