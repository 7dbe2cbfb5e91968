"""Whether the blocking checks of what was made let anything downstream begin."""

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from ml_platform.automation.history import Event, History

_LOOKED_AT = 50  # newest executions of one check: a week of days with several attempts each


def blocking_checks_passed(view: AssetGraphView, history: History, key: dg.AssetKey, day: str | None) -> bool:
    """Whether no blocking check of the newest materialization failed as an error or has yet to run.

    Judged by the run that made it (or a later one of the check alone), so that a good day does not clear a bad one.
    A check that was never run on it, or was skipped, does not gate: Dagster's runs follow the same rule.
    """
    made = history.past(key, day).made
    graph = view.asset_graph
    checks = [check for check in sorted(graph.get(key).check_keys) if graph.get(check).blocking]
    return made is None or all(_passed(view.instance, history, check, made) for check in checks)


def _passed(instance: dg.DagsterInstance, history: History, check: dg.AssetCheckKey, made: Event) -> bool:
    if (check, made.id) not in history.checked:
        history.checked[check, made.id] = _look_up(instance, history, check, made)
    return history.checked[check, made.id]


def _look_up(instance: dg.DagsterInstance, history: History, check: dg.AssetCheckKey, made: Event) -> bool:
    executions = instance.event_log_storage.get_asset_check_execution_history(check, limit=_LOOKED_AT)
    newest = next((execution for execution in executions if _is_of(execution, made)), None)
    if newest is None or newest.status is Status.SUCCEEDED:
        return True
    if newest.status is Status.PLANNED:
        return not history.running(newest.run_id)
    return newest.evaluation is not None and newest.evaluation.severity is not dg.AssetCheckSeverity.ERROR


def _is_of(execution: AssetCheckExecutionRecord, made: Event) -> bool:
    """Whether the check looked (or will look) at this materialization."""
    if execution.run_id == made.run_id:
        return True
    looked_at = execution.evaluation if execution.status is not Status.PLANNED else None
    target = looked_at.target_materialization_data if looked_at else None
    return target is not None and target.storage_id == made.id
