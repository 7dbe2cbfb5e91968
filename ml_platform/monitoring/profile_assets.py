"""Profiles as assets: of each raw table, and of what each service was given, answered and learned."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.automation.conditions import each_day
from ml_platform.automation.gates import reads
from ml_platform.automation.partitions import days_of
from ml_platform.monitoring.profiling import Kept, by_local_clock, keep_profiles
from ml_platform.monitoring.served import answered, truths
from ml_platform.spec import Project, Service, SourceTable
from ml_platform.spec.calendar import day_of
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake

GROUP = "profiles"
_Results = Iterator[dg.MaterializeResult[Any]]


def profile_assets(project: Project, days: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """One step for all daily raw tables, one for the reference tables, one for each service's log.

    A step takes longer than the counting of a day, so each counts what it can together.
    """
    daily = [table for table in project.tables.values() if table.partitioned]
    whole = [table for table in project.tables.values() if not table.partitioned]
    return [
        *([_daily("profile_tables", [_of_table(table) for table in daily], days, project.timezone)] if daily else []),
        *([_reference_tables(project, whole)] if whole else []),
        *(
            _daily(f"profile_{service.name}", _of_service(service), days, project.timezone)
            for service in project.services.values()
        ),
    ]


def _of_table(table: SourceTable) -> dg.AssetSpec:
    return _spec(asset_keys.raw(table.name), table.owner, f"each column of raw/{table.name}")


def _of_service(service: Service) -> list[dg.AssetSpec]:
    told = {
        asset_keys.predictions(service.name): f"each feature that {service.name} was given, and its answers",
        asset_keys.labels(service.name): f"the labels of {service.name} that became known",
    }
    return [_spec(key, service.owner, what) for key, what in told.items()]


def _spec(of: dg.AssetKey, owner: str, what: str) -> dg.AssetSpec:
    key = asset_keys.profiles(of.path[0], of.path[-1])
    return dg.AssetSpec(
        key,
        deps=[of],
        description=f"What {what} holds, by the day: a histogram, missing, infinite and zero values, least, greatest, "
        f"mean; days add up exactly.",
        automation_condition=each_day(),
        metadata={"fresh_within_hours": 26, **reads(())},  # of a refused column it counts the missing values
        kinds=asset_keys.kinds(key, "deltalake", "polars"),
        owners=[owner],
        group_name=GROUP,
    )


def _daily(
    name: str, specs: Sequence[dg.AssetSpec], days: dg.DailyPartitionsDefinition, timezone: str
) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=name,
        specs=specs,
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def profiles(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> _Results:
        span = days_of(context)
        for key in sorted(context.selected_asset_keys):
            kept = keep_profiles(lake, key.path[1:], span, lambda day, of=key: _rows_of(lake, of, day, timezone))  # type: ignore[misc]
            yield dg.MaterializeResult(asset_key=key, metadata=_told(kept))

    return profiles


def _rows_of(lake: Lake, profiles: dg.AssetKey, day: date, timezone: str) -> pl.DataFrame:
    """The table's rows of a day, as they are counted."""
    _, family, name = profiles.path
    rows = lake.read(f"{family}/{name}", first=day, last=day)
    if family == "raw":
        rows = by_local_clock(rows, timezone)
    elif family == "predictions":
        rows = answered(rows)
    elif family == "labels":
        rows = truths(rows)
    return rows.drop(PARTITION, strict=False)


def _reference_tables(project: Project, tables: Sequence[SourceTable]) -> dg.AssetsDefinition:
    # Made anew only when the table is.
    specs = [_of_table(table).replace_attributes(metadata=reads(())) for table in tables]

    @dg.multi_asset(name="profile_reference_tables", specs=specs, can_subset=True)
    def profiles(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], clock: dg.ResourceParam[Clock]
    ) -> _Results:
        today = day_of(clock.now(), project.timezone)
        for key in sorted(context.selected_asset_keys):
            name = "/".join(key.path[1:])
            kept = keep_profiles(lake, key.path[1:], [today], lambda _, of=name: lake.read(of), relearning=False)  # type: ignore[misc]
            yield dg.MaterializeResult(asset_key=key, metadata=_told(kept))

    return profiles


def _told(kept: Kept) -> Mapping[str, Any]:
    anew = {"bins_learned_anew": kept.relearned, "days_counted_anew": kept.counted_anew} if kept.relearned else {}
    return {"dagster/row_count": kept.rows.height, "columns": kept.columns, "version_of_bins": kept.version, **anew}
