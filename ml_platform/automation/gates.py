"""Whether the blocking checks of what was made let anything downstream begin."""

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from ml_platform.automation.history import History


def blocking_checks_passed(view: AssetGraphView, history: History, key: dg.AssetKey, day: str | None) -> bool:
    """Whether no blocking check of the newest materialization failed as an error or has yet to run.

    Judged by the executions of the run that made it, or of a later one that checked it alone, so that a good day does
    not clear a bad one. A check that never ran on it, or was skipped, does not gate: Dagster's runs follow the same
    rule.
    """
    made = history.past(key, day).made
    checks = {check.name for check in view.asset_graph.get(key).check_keys if view.asset_graph.get(check).blocking}
    if made is None or not checks:
        return True
    if (key, made.id) not in history.checked:
        from ml_platform.automation.event_log import newest_checks  # loads SQLAlchemy, see history.py

        newest = newest_checks(view.instance, key, run_id=made.run_id, event_id=made.id, partition=day)
        history.checked[key, made.id] = all(_passed(history, newest[name]) for name in checks & newest.keys())
    return history.checked[key, made.id]


def _passed(history: History, execution: AssetCheckExecutionRecord) -> bool:
    if execution.status is Status.PLANNED:
        return not history.running(execution.run_id)
    found = execution.evaluation
    return execution.status is Status.SUCCEEDED or (
        found is not None and found.severity is not dg.AssetCheckSeverity.ERROR
    )
