"""Whether the blocking checks of what was made let anything downstream begin."""

from typing import Any, cast

import dagster as dg
import sqlalchemy as sa
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from ml_platform.automation.history import Event, History


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
        newest = _newest(view.instance, key, made, day)
        history.checked[key, made.id] = all(_passed(history, newest[name]) for name in checks & newest.keys())
    return history.checked[key, made.id]


def _newest(
    instance: dg.DagsterInstance, key: dg.AssetKey, made: Event, day: str | None
) -> dict[str, AssetCheckExecutionRecord]:
    """The newest execution of each check that looked, or will look, at this materialization."""
    table = AssetCheckExecutionsTable.c
    query = (
        sa.select(AssetCheckExecutionsTable)
        .where(
            table.asset_key == key.to_string(),
            sa.or_(table.run_id == made.run_id, table.materialization_event_storage_id == made.id),
            sa.or_(table.partition.is_(None), table.partition == day),
        )
        .order_by(table.id)
    )
    with cast("SqlEventLogStorage", instance.event_log_storage).index_connection() as connection:
        rows: list[Any] = list(connection.execute(query).mappings())
    return {
        row["check_name"]: AssetCheckExecutionRecord.from_db_row(row, key=dg.AssetCheckKey(key, row["check_name"]))
        for row in rows
    }


def _passed(history: History, execution: AssetCheckExecutionRecord) -> bool:
    if execution.status is Status.PLANNED:
        return not history.running(execution.run_id)
    found = execution.evaluation
    return execution.status is Status.SUCCEEDED or (
        found is not None and found.severity is not dg.AssetCheckSeverity.ERROR
    )
