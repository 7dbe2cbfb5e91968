"""Stage 2 as assets: every feature view computed once, for the lake and for the online store; Feast's registry."""

from datetime import timedelta
from math import ceil
from typing import Any, TypedDict

import dagster as dg

from ml_platform import asset_keys
from ml_platform.automation.conditions import each_day
from ml_platform.automation.gates import LOOKS_BACK, reads
from ml_platform.automation.partitions import days_of
from ml_platform.features.follow import Delivered, FollowedOnce
from ml_platform.features.refresh import GRID, column_types, is_daily, rows_of_days, rows_of_reference, table_name
from ml_platform.features.registry import apply
from ml_platform.features.windows import AS_OF
from ml_platform.resources import metadata
from ml_platform.resources.profiles import Profile
from ml_platform.sources.columns import refuse_use
from ml_platform.spec import FeatureView, Project, RequestView
from ml_platform.spec.calendar import days_shown
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.spec.lineage import request_columns, table_columns, view_columns
from ml_platform.spec.request_views import POLARS_TYPES
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.online import Online
from ml_platform.stores.tiles import TileStore

GROUP = "features"


def feature_assets(
    project: Project, days: dg.DailyPartitionsDefinition, delivered: Delivered | None = None
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """One asset a feature view, a place in the graph for each request view, and the Feast registry of them all."""
    followed = FollowedOnce(project, delivered)
    daily = [_daily(view, project, days, followed) for view in project.views.values() if is_daily(view, project)]
    reference = [_reference(view, project) for view in project.views.values() if not is_daily(view, project)]
    on_request = [_on_request(view, project) for view in project.request_views.values()]
    return [*daily, *reference, *on_request, _registry(project)]


class _Described(TypedDict):
    """What the decorator of every feature view's asset is told; typed, so that it stays so."""

    key: dg.AssetKey
    deps: list[dg.AssetKey]
    description: str
    kinds: set[str]
    owners: list[str]
    group_name: str
    code_version: str
    automation_condition: dg.AutomationCondition[dg.AssetKey]
    metadata: dict[str, Any]


def _described(view: FeatureView, project: Project) -> _Described:
    entities = " and ".join(view.entity_names)
    lineage = metadata.lineage(table_columns(view, project.tables), column_types(view))
    return {
        "key": asset_keys.features(view.name),
        "deps": [asset_keys.raw(table) for table in view.sources],
        "description": f"{view.description} One row for each {entities} and hour in which a value changed.",
        "kinds": {"polars", "deltalake", "feast"},
        "owners": [view.owner],
        "group_name": GROUP,
        "code_version": fingerprint(view),
        "automation_condition": each_day(),
        "metadata": {**lineage, **_deadline(view, project), **_reads(view, project)},
    }


def _deadline(view: FeatureView, project: Project) -> dict[str, float]:
    return {"fresh_within_hours": view.fresh_within / timedelta(hours=1)} if is_daily(view, project) else {}


def _reads(view: FeatureView, project: Project) -> dict[str, Any]:
    """The raw columns without which it stands still, and the days that a value looks back on."""
    return {**reads(view_columns(view, project.tables)), LOOKS_BACK: ceil(view.lookback / timedelta(days=1))}


def _daily(
    view: FeatureView, project: Project, days: dg.DailyPartitionsDefinition, followed: FollowedOnce
) -> dg.AssetsDefinition:
    columns, daily = view_columns(view, project.tables), {t.name: t.partitioned for t in project.tables.values()}

    @dg.asset(
        **_described(view, project),
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def features(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        online: dg.ResourceParam[Online],
        tiles: dg.ResourceParam[TileStore],
        clock: dg.ResourceParam[Clock],
    ) -> dg.MaterializeResult[Any]:
        span = days_of(context)
        refuse_use(lake, f"features/{view.name} of {days_shown(span)}", columns, span, daily)
        rows = rows_of_days(view, project, lake, span[0], span[-1], GRID)
        lake.replace(table_name(view), rows, span)
        published = online.publish(view, rows, clock.now())
        mended = followed.follow(context.run_id, view, lake, tiles, span, clock.now())
        return dg.MaterializeResult(
            metadata={**metadata.table(rows), "entities_published": published, "tiles_mended": mended}
        )

    return features


def _reference(view: FeatureView, project: Project) -> dg.AssetsDefinition:
    @dg.asset(**_described(view, project))
    def features(
        lake: dg.ResourceParam[Lake], online: dg.ResourceParam[Online], clock: dg.ResourceParam[Clock]
    ) -> dg.MaterializeResult[Any]:
        refuse_use(lake, f"features/{view.name}", view_columns(view, project.tables), [], {view.source: False})
        rows = rows_of_reference(view, project, lake, clock.now(), GRID)
        lake.replace(table_name(view), rows, None)
        published = online.publish(view, rows, clock.now())
        return dg.MaterializeResult(
            metadata={**metadata.table(rows), "entities_published": published, "newest": str(rows[AS_OF].max())}
        )

    return features


def _on_request(view: RequestView, project: Project) -> dg.AssetSpec:
    """Nothing is stored of it, so nothing is made; what it depends on and what depends on it is in the graph."""
    columns = request_columns(view, project)
    tables = sorted({column.table for made_of in columns.values() for column in made_of if column.family == "raw"})
    return dg.AssetSpec(
        asset_keys.features(view.name),
        deps=[*map(asset_keys.features, view.views_read), *map(asset_keys.raw, tables)],
        description=f"{view.description} Computed when it is asked, for training and serving alike; no table holds it.",
        kinds=asset_keys.kinds(asset_keys.features(view.name), "polars"),
        owners=[view.owner],
        group_name=GROUP,
        code_version=fingerprint(view),
        metadata=metadata.lineage(columns, {name: POLARS_TYPES[kind] for name, kind in view.schema().items()}),
    )


def _registry(project: Project) -> dg.AssetsDefinition:
    views = sorted(project.all_views.items())

    @dg.asset(
        key=asset_keys.feature_registry(),
        deps=[asset_keys.features(name) for name, _ in views],
        description="Every feature view, entity and feature service, registered in Feast by `feast apply`.",
        kinds={"feast", "sqlite"},
        owners=["team:ml-platform"],
        group_name=GROUP,
        code_version=fingerprint(views),
    )
    def registry(profile: dg.ResourceParam[Profile]) -> dg.MaterializeResult[Any]:
        said = apply(project, profile)
        return dg.MaterializeResult(
            metadata={"feature_views": len(views), "feast": dg.MetadataValue.md(f"```\n{said}\n```")}
        )

    return registry
