"""Questions to Dagster's event log that its own interface answers only asset by asset."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage


@dataclass(frozen=True)
class Row:
    """One event: which asset and partition, of which kind, with its id, run and wall clock (UTC)."""

    key: dg.AssetKey
    partition: str | None
    kind: str
    id: int
    run_id: str
    at: datetime


def newest_events(
    instance: dg.DagsterInstance, keys: Collection[dg.AssetKey], partitions: Collection[str], kinds: Sequence[str]
) -> Iterator[Row]:
    """The newest event of each kind for each asset, without partition and for each of ``partitions``.

    Events from before an asset was wiped are left out. Two queries, however many assets there are.
    """
    names = {key.to_string(): key for key in keys}
    with _connection(instance) as connection:
        wiped = dict(connection.execute(_WIPED).all())
        queries = (_newest(names, None, kinds), _newest(names, partitions, kinds))
        rows = [row for query in queries for row in connection.execute(query)]
    for row in rows:
        if row.asset_key not in wiped or row.timestamp > wiped[row.asset_key]:
            at = row.timestamp.replace(tzinfo=UTC)
            yield Row(names[row.asset_key], row.partition, row.dagster_event_type, row.id, row.run_id, at)


def newest_checks(
    instance: dg.DagsterInstance, key: dg.AssetKey, *, run_id: str, event_id: int, partition: str | None
) -> dict[str, AssetCheckExecutionRecord]:
    """The newest execution of each check, by name, that belongs to a materialization: by its run or by its event."""
    table = AssetCheckExecutionsTable.c
    query = (
        sa.select(AssetCheckExecutionsTable)
        .where(
            table.asset_key == key.to_string(),
            sa.or_(table.run_id == run_id, table.materialization_event_storage_id == event_id),
            sa.or_(table.partition.is_(None), table.partition == partition),
        )
        .order_by(table.id)
    )
    with _connection(instance) as connection:
        rows: list[Any] = list(connection.execute(query).mappings())
    return {
        row["check_name"]: AssetCheckExecutionRecord.from_db_row(row, key=dg.AssetCheckKey(key, row["check_name"]))
        for row in rows
    }


def newest_check_of_each(instance: dg.DagsterInstance) -> Iterator[AssetCheckExecutionRecord]:
    """The newest result of every check that ever had one, whatever its partition. One query."""
    table = AssetCheckExecutionsTable.c
    newest = (
        sa.select(sa.func.max(table.id))
        .where(table.execution_status.in_(("SUCCEEDED", "FAILED")))
        .group_by(table.asset_key, table.check_name)
    )
    query = sa.select(AssetCheckExecutionsTable).where(table.id.in_(newest)).order_by(table.asset_key, table.check_name)
    with _connection(instance) as connection:
        rows: list[Any] = list(connection.execute(query).mappings())
    for row in rows:
        key = dg.AssetKey.from_db_string(row["asset_key"])
        if key is not None:
            yield AssetCheckExecutionRecord.from_db_row(row, key=dg.AssetCheckKey(key, row["check_name"]))


def failed_checks(
    instance: dg.DagsterInstance, keys: Collection[dg.AssetKey], names: Sequence[str], partitions: Collection[str]
) -> list[tuple[int, AssetCheckExecutionRecord]]:
    """Every failed execution of these checks, of these partitions or of no single one, oldest first, with its event's
    id; one query."""
    table, by_name = AssetCheckExecutionsTable.c, {key.to_string(): key for key in keys}
    query = (
        sa.select(AssetCheckExecutionsTable)
        .where(
            table.asset_key.in_(sorted(by_name)),
            table.check_name.in_(names),
            table.execution_status == AssetCheckExecutionRecordStatus.FAILED.value,
            sa.or_(table.partition.is_(None), table.partition.in_(sorted(partitions))),
        )
        .order_by(table.id)
    )
    with _connection(instance) as connection:
        rows: list[Any] = list(connection.execute(query).mappings())
    keys_of = [dg.AssetCheckKey(by_name[row["asset_key"]], row["check_name"]) for row in rows]
    return [
        (row["evaluation_event_storage_id"], AssetCheckExecutionRecord.from_db_row(row, key=key))
        for row, key in zip(rows, keys_of, strict=True)
    ]


_WIPED = sa.select(AssetKeyTable.c.asset_key, AssetKeyTable.c.wipe_timestamp).where(
    AssetKeyTable.c.wipe_timestamp.is_not(None)
)


def _connection(instance: dg.DagsterInstance) -> Any:
    return cast("SqlEventLogStorage", instance.event_log_storage).index_connection()


def _newest(names: Collection[str], partitions: Collection[str] | None, kinds: Sequence[str]) -> sa.Select[Any]:
    table = SqlEventLogStorageTable.c
    newest = (
        sa.select(sa.func.max(table.id))
        .where(
            table.asset_key.in_(sorted(names)),
            table.dagster_event_type.in_(kinds),
            table.partition.is_(None) if partitions is None else table.partition.in_(sorted(partitions)),
        )
        .group_by(table.asset_key, table.dagster_event_type, table.partition)
    )
    columns = (table.asset_key, table.partition, table.dagster_event_type, table.id, table.run_id, table.timestamp)
    return sa.select(*columns).where(table.id.in_(newest))
