"""Raw tables as assets: read, judge, write."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg

from ml_platform import asset_keys
from ml_platform.automation.conditions import each_day
from ml_platform.automation.partitions import days_of
from ml_platform.resources import metadata
from ml_platform.sources.admission import Admission
from ml_platform.sources.checks import check_results, check_specs, refused
from ml_platform.sources.ingest import ingest, nothing_lost
from ml_platform.spec import ContractBroken, Project, SourceError, SourceTable
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import Forgotten

_Events = Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]


def source_assets(project: Project, days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """One asset ``raw/<name>`` a source table, with its checks; reference tables are not partitioned."""
    return [_raw_table(project, table, days) for table in project.tables.values()]


def _raw_table(project: Project, table: SourceTable, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    key = asset_keys.raw(table.name)

    @dg.asset(
        key=key,
        description=table.description,
        group_name="sources",
        kinds={"deltalake", "polars"},
        owners=[table.owner],
        tags=dict(table.tags),
        metadata=_declared(table),
        deps=[asset_keys.raw(name) for name in _references(table)],
        partitions_def=days if table.partitioned else None,
        backfill_policy=dg.BackfillPolicy.single_run() if table.partitioned else None,
        automation_condition=each_day(),
        check_specs=check_specs(table, key),
    )
    def raw_table(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        clock: dg.ResourceParam[Clock],
        forgotten: dg.ResourceParam[Forgotten],
    ) -> _Events:
        asked, now, admit = _span(context, table, project), clock.now(), Admission(project, forgotten)
        try:
            found = ingest(table, lake, *asked, now, project.timezone, admit=admit)
        except ContractBroken as error:
            yield refused(key, str(error), days_of(context) if table.partitioned else [None])
            raise dg.Failure(description=str(error), allow_retries=False) from error
        except SourceError as error:
            raise dg.Failure(description=str(error)) from error
        told = {"rows_read": found.rows_read, "rows_forgotten": found.rows_forgotten}
        yield dg.MaterializeResult(metadata={**metadata.table(found.good), **metadata.verdict(found.contract), **told})
        yield from check_results(key, found, nothing_lost(table, lake, *asked, now, project.timezone, admit=admit))

    return raw_table


def _span(context: dg.AssetExecutionContext, table: SourceTable, project: Project) -> tuple[date, date]:
    """First and last day of this run; a reference table is read whole, whatever the days."""
    if not table.partitioned:
        return project.starts, project.starts
    days = days_of(context)
    return days[0], days[-1]


def _references(table: SourceTable) -> list[str]:
    return list(dict.fromkeys(rule.references[1] for rule in table.rules if rule.references))


def _declared(table: SourceTable) -> dict[str, Any]:
    declared: dict[str, Any] = {
        "dagster/column_schema": metadata.schema(table.columns),
        "known_at_source": table.known_at_source,
        "key": ", ".join(table.key),
        "data_docs": f"ml-platform contract docs {table.name}",
    }
    if table.fresh_within is not None:
        declared["fresh_within_hours"] = table.fresh_within.total_seconds() / 3600
    return declared
