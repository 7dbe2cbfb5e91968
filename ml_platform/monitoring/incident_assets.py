"""Incidents as assets: what began that which drifted or stands still, one message a cause."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from ml_platform import asset_keys
from ml_platform.automation.conditions import after_anything
from ml_platform.monitoring.incidents import days_to_look_at, look
from ml_platform.resources import metadata
from ml_platform.spec import Project, Service, Verdict
from ml_platform.spec.calendar import day_of
from ml_platform.spec.incidents import Incident, incident_rows
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake

NONE_OPEN = "no_open_incident"
_Events = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


def incident_assets(project: Project) -> list[dg.AssetsDefinition]:
    """``incidents/<service>`` of every service."""
    return [_incidents(project, service) for service in project.services.values()]


def _incidents(project: Project, service: Service) -> dg.AssetsDefinition:
    key = asset_keys.incidents(service.name)
    policies = [name for name, one in project.drift_policies.items() if one.table or one.service == service.name]
    looked_at = [asset_keys.predictions(service.name), *map(asset_keys.drift, policies)]
    tables = [table.name for table in project.tables.values() if table.partitioned]
    looked_at += [asset_keys.profiles("raw", name) for name in tables]

    @dg.asset(
        key=key,
        # Without days of its own it has a run of its own, after that of the day: what failed there is evidence here.
        deps=[dg.AssetDep(one, partition_mapping=dg.LastPartitionMapping()) for one in looked_at],
        check_specs=[dg.AssetCheckSpec(NONE_OPEN, asset=key, description="No incident is open.")],
        description=f"What began that which drifted in {service.name} or stands still: the earliest that drifted, up "
        f"the lineage of columns, with what a contract refused, numbers of rows, missing values and code on the way.",
        automation_condition=after_anything(*looked_at),
        metadata={"fresh_within_hours": 26},
        kinds=asset_keys.kinds(key, "deltalake", "polars"),
        owners=[service.owner],
        group_name="monitoring",
    )
    def incidents(lake: dg.ResourceParam[Lake], clock: dg.ResourceParam[Clock]) -> _Events:
        last = day_of(clock.now(), project.timezone) - timedelta(days=1)
        found = look(project, service, lake, days_to_look_at(lake, service.name, last))
        verdict, guilty = told_of(found), [one for one in found if one.closed_on is None]
        links = {f"guilty: {one.cause}": dg.MetadataValue.asset(dg.AssetKey(one.asset.split("/"))) for one in guilty}
        shown = {"incidents": metadata.rows(incident_rows(found)), **links}
        yield dg.MaterializeResult(metadata={**metadata.verdict(verdict), **shown})
        yield metadata.check(verdict, name=NONE_OPEN)

    return incidents


def told_of(incidents: Sequence[Incident]) -> Verdict:
    """The open ones in one sentence each, those that page first; what only warns is a warning."""
    left = sorted((one for one in incidents if one.closed_on is None), key=lambda one: (one.severity, one.id))
    closed = len(incidents) - len(left)
    measures = {"open": len(left), "closed": closed, "paging": sum(one.severity == "page" for one in left)}
    if not left:
        ended = f"; ended: {', '.join(one.cause for one in incidents)}" if closed else ""
        return Verdict(state="pass", reason=f"no incident is open{ended}", measures=measures)
    reason = " | ".join(f"{one.cause}: {one.sentence}" for one in left)
    return Verdict(state="fail" if measures["paging"] else "warn", reason=reason, measures=measures)
