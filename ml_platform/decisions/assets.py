"""Stage 6 as assets: the daily decision with its reason, and the alarm while a wanted retraining is not consumed."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.automation.conditions import follows_days
from ml_platform.decisions import record
from ml_platform.decisions.estimate import estimator
from ml_platform.decisions.retraining import decide
from ml_platform.decisions.why import why
from ml_platform.spec import ModelSpec, Project, RetrainPolicy, Service
from ml_platform.spec.calendar import day_of
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_wants import outstanding
from ml_platform.stores.tracking import Tracking
from ml_platform.training.manifest import declared

GROUP = "decisions"


def decision_assets(project: Project) -> list[dg.AssetsDefinition]:
    """One decision with its alarm for every model that has a retraining policy and a service to be judged by."""
    services = {service.model: service for service in project.services.values()}
    return [
        _decision(project, project.retrain_policies[spec.policy], spec, services[name])
        for name, spec in project.models.items()
        if spec.policy and name in services
    ]


def _decision(project: Project, policy: RetrainPolicy, spec: ModelSpec, service: Service) -> dg.AssetsDefinition:
    decision_key, alarm_key = asset_keys.decision(policy.name), asset_keys.retrain(policy.name)
    watched = [asset_keys.performance(service.name)]
    drifts = project.drift_policies.values()
    watched += [asset_keys.drift(p.name) for p in drifts if p.service == service.name or p.name in policy.triggers]
    fingerprint = declared(project, spec)

    @dg.multi_asset(
        name=f"decide_{policy.name}",
        specs=[
            dg.AssetSpec(
                decision_key,
                deps=[dg.AssetDep(key, partition_mapping=dg.LastPartitionMapping()) for key in watched],
                description=f"Whether {spec.name} is trained again, and why (or why not). {policy.description}",
                automation_condition=follows_days(),
                metadata={"fresh_within_hours": 26},
                kinds=asset_keys.kinds(decision_key, "polars"),
                owners=[spec.owner],
                group_name=GROUP,
            ),
            dg.AssetSpec(
                alarm_key,
                deps=[decision_key],
                skippable=True,
                description=f"Raised each day while a wanted retraining of {spec.name} has not been carried out.",
                kinds=asset_keys.kinds(alarm_key, "sqlite"),
                owners=[spec.owner],
                group_name=GROUP,
            ),
        ],
    )
    def decision(
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
        tracking: dg.ResourceParam[Tracking],
        clock: dg.ResourceParam[Clock],
    ) -> Iterator[dg.MaterializeResult[Any]]:
        now = clock.now()
        day = day_of(now, project.timezone) - timedelta(days=1)
        past = record.past(ledger, policy, spec.name, project.timezone, fingerprint)
        history = lake.read(f"performance/{service.name}")
        estimate = estimator(lake, tracking, project, spec, service, policy, now)
        found = decide(policy, history, past, day, now, project.timezone, estimate)
        line = record.write(ledger, policy, spec.name, day.isoformat(), now, found, project.timezone)
        told = why(ledger, spec.name, now).text
        yield dg.MaterializeResult(asset_key=decision_key, metadata={**_told(line.body, history), "why": told})
        due = outstanding(ledger, spec.name)
        if due:
            alarm: dict[str, Any] = {"reason": due.body["reason"], "wanted": due.body["wanted"], "decided_on": due.key}
            yield dg.MaterializeResult(asset_key=alarm_key, metadata=alarm)

    return decision


def _told(body: Mapping[str, Any], history: pl.DataFrame) -> dict[str, Any]:
    """From the line that stands: a second attempt on the same day may have found something else."""
    return {
        "answer": str(body["answer"]),
        "reason": str(body["reason"]),
        "retrainings_wanted": int(body["wanted"]),
        "retrainings_consumed": int(body["consumed"]),
        "cohorts": history.select("cohort", "model_version").n_unique(),
        **body["measures"],
    }
