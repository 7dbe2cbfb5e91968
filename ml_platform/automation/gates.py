"""Whether the checks of what was made let something downstream begin: blocking ones all, refused columns their readers.

Dagster blocks by asset: behind a failed blocking check nothing begins. A refused column of a raw table must stop only
what reads it, so the check that names it does not block in Dagster's sense. Each asset that reads raw columns says in
its definition's metadata which (``READS``); one that does not say is taken to read all of them.
"""

from collections.abc import Collection, Iterable
from typing import Any

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from ml_platform.automation.history import History, Refusals
from ml_platform.spec.lineage import ALL_COLUMNS

CONTRACT_CHECK = "contract"  # the check of a raw table that fails where the whole batch is refused
COLUMNS_CHECK = "columns"  # the check of a raw table that fails while columns of it are refused
REFUSED = "refused"  # in the metadata of both: column (or ALL_COLUMNS) -> days ("None" for a table without days)
READS = "reads"  # in an asset's metadata: the raw columns that it cannot do without, as "raw/<table>.<column>"
LOOKS_BACK = "looks_back_days"  # in an asset's metadata: how many days before its own its values depend on


def reads(columns: Iterable[object]) -> dict[str, list[str]]:
    """For an asset's definition: the raw columns that it reads, written as ``spec.lineage.Column`` is."""
    return {READS: sorted(map(str, columns))}


def refused_columns(execution: AssetCheckExecutionRecord | None, day: str | None) -> frozenset[str]:
    """The columns that a check found refused on a day."""
    found = execution.evaluation if execution is not None else None
    if found is None or found.passed or REFUSED not in found.metadata:
        return frozenset()
    days: Any = found.metadata[REFUSED].value
    return frozenset(column for column, refused_on in days.items() if str(day) in refused_on)


def reads_any(view: AssetGraphView, key: dg.AssetKey, parent: dg.AssetKey, columns: Collection[str]) -> bool:
    """Whether an asset reads one of these columns of a raw table."""
    told: Any = view.asset_graph.get(key).metadata.get(READS)
    names = getattr(told, "value", told)
    if names is None:
        return bool(columns)
    table = "/".join(parent.path)
    read = {name.removeprefix(f"{table}.") for name in names if name.startswith(f"{table}.")}
    return bool(read) if ALL_COLUMNS in columns else not read.isdisjoint(columns)


def columns_hold(
    view: AssetGraphView, history: History, key: dg.AssetKey, parent: dg.AssetKey, day: str | None
) -> bool:
    """Whether no column of the parent's day that the asset reads was refused when the day was made."""
    refused = refused_on(view, history, parent, day)
    return not refused or not reads_any(view, key, parent, refused)


def refused_on(view: AssetGraphView, history: History, key: dg.AssetKey, day: str | None) -> frozenset[str]:
    """The columns of a raw table's day that were refused when it was made; none of an asset without that check."""
    made = history.past(key, day).made
    if made is None or dg.AssetCheckKey(key, COLUMNS_CHECK) not in view.asset_graph.get(key).check_keys:
        return frozenset()
    judged = _executions(view, history, key, day).get(COLUMNS_CHECK)
    if judged is not None and judged.status is Status.PLANNED:
        return frozenset({ALL_COLUMNS})  # nobody has said yet that they are good
    return refused_columns(judged, day)


def unjudged(view: AssetGraphView, history: History, key: dg.AssetKey, day: str | None) -> bool:
    """Whether checks that gate were planned with the newest materialization, and their run ended before they did."""
    made = history.past(key, day).made
    gating = _blocking(view, key) | {COLUMNS_CHECK}
    if made is None or gating.isdisjoint(check.name for check in view.asset_graph.get(key).check_keys):
        return False
    newest = _executions(view, history, key, day)
    planned = (newest[name] for name in gating & newest.keys() if newest[name].status is Status.PLANNED)
    return any(not history.running(execution.run_id) for execution in planned)


def refused_before(
    view: AssetGraphView, history: History, key: dg.AssetKey, day: str
) -> list[tuple[int, frozenset[str]]]:
    """Every time that columns of a raw table's day, or all of it, were refused: the event's id and the columns."""
    if history.refusals is None:
        history.refusals = _all_refusals(view, history)
    return history.refusals.get((key, day), [])


def _all_refusals(view: AssetGraphView, history: History) -> Refusals:
    from ml_platform.automation.event_log import failed_checks  # loads SQLAlchemy, see history.py

    graph, found = view.asset_graph, Refusals()
    keys = [
        key for key in graph.materializable_asset_keys if dg.AssetCheckKey(key, COLUMNS_CHECK) in graph.asset_check_keys
    ]
    days = {day for key in keys for day in history.days(key)}
    for at, execution in failed_checks(view.instance, keys, (COLUMNS_CHECK, CONTRACT_CHECK), days):
        for day in days:
            if columns := refused_columns(execution, day):
                found.setdefault((execution.key.asset_key, day), []).append((at, columns))
    return found


def _executions(
    view: AssetGraphView, history: History, key: dg.AssetKey, day: str | None
) -> dict[str, AssetCheckExecutionRecord]:
    """The newest execution of each check of the newest materialization, by name."""
    made = history.past(key, day).made
    if made is None:
        return {}
    if (key, made.id) not in history.checks:
        from ml_platform.automation.event_log import newest_checks  # loads SQLAlchemy, see history.py

        found = newest_checks(view.instance, key, run_id=made.run_id, event_id=made.id, partition=day)
        history.checks[key, made.id] = found
    return history.checks[key, made.id]


def blocking_checks_passed(view: AssetGraphView, history: History, key: dg.AssetKey, day: str | None) -> bool:
    """Whether no blocking check of the newest materialization failed as an error, has yet to run or was cut off.

    Judged by the executions of the run that made it, or of a later one that checked it alone, so that a good day does
    not clear a bad one. A check that the run did not plan does not gate: Dagster's runs follow the same rule. One that
    it planned and did not end, since a kill fell between, does: no verdict is no pass.
    """
    checks = _blocking(view, key)
    if history.past(key, day).made is None or not checks:
        return True
    newest = _executions(view, history, key, day)
    return all(_passed(newest[name]) for name in checks & newest.keys())


def _blocking(view: AssetGraphView, key: dg.AssetKey) -> frozenset[str]:
    graph = view.asset_graph
    return frozenset(check.name for check in graph.get(key).check_keys if graph.get(check).blocking)


def _passed(execution: AssetCheckExecutionRecord) -> bool:
    if execution.status is Status.PLANNED:
        return False
    found = execution.evaluation
    return execution.status is Status.SUCCEEDED or (
        found is not None and found.severity is not dg.AssetCheckSeverity.ERROR
    )
