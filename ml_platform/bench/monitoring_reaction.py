"""How long the platform takes from a day's data to a challenger in the shadow: read off a state's own runs.

Every retraining that a state remembers is taken apart: when its first run began, and when each step was done, by the
clock on the wall. The steps are those of production, in the embedded profile one process does them one after another.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median

import dagster as dg

from ml_platform import asset_keys
from ml_platform.automation.instance import open_instance
from ml_platform.automation.runs import CLOCK_TAG
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.spec import MissingHistory, ModelSpec, Project

MOST_SECONDS = 60
_RUNS_OF_A_TICK = 100


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """One retraining: the replayed moment, and seconds from its first run's beginning until each step was done."""

    at: datetime
    seconds: Mapping[str, float]


def steps_of(project: Project, spec: ModelSpec) -> dict[str, list[dg.AssetKey]]:
    """Step -> the assets whose newest is its end, in the order in which they happen."""
    services = [service for service in project.services.values() if service.model == spec.name]
    names = [service.name for service in services]
    drift = [policy.name for policy in project.drift_policies.values() if policy.service in names]
    return {
        "raw tables read and judged": [asset_keys.raw(name) for name in project.tables],
        "performance and drift judged": [*map(asset_keys.performance, names), *map(asset_keys.drift, drift)],
        "decided": [asset_keys.decision(str(spec.policy))],
        "training set gathered": [asset_keys.training_set(spec.name)],
        "challenger trained": [asset_keys.model(spec.name)],
        "evaluated, the gate's verdict": [asset_keys.evaluation(spec.name)],
        "shadow begun, or refused": [asset_keys.service(name) for name in names],
    }


def reactions(instance: dg.DagsterInstance, project: Project, spec: ModelSpec) -> list[Reaction]:
    """Every retraining that the decision asked for, the oldest first."""
    alarms = instance.fetch_materializations(asset_keys.retrain(str(spec.policy)), limit=10_000).records
    moments = sorted({moment for record in alarms if (moment := _moment(instance, record.run_id))})
    found = (_reaction(instance, moment, steps_of(project, spec)) for moment in moments)
    return [each for each in found if each is not None]


def _moment(instance: dg.DagsterInstance, run_id: str) -> str | None:
    run = instance.get_run_by_id(run_id)
    return run.tags.get(CLOCK_TAG) if run else None


def _reaction(instance: dg.DagsterInstance, moment: str, steps: Mapping[str, Iterable[dg.AssetKey]]) -> Reaction | None:
    """None where the tick did not go all the way: it was cut off, or nothing was trained in it."""
    runs = instance.get_run_records(dg.RunsFilter(tags={CLOCK_TAG: moment}), limit=_RUNS_OF_A_TICK)
    started = [run.start_time for run in runs if run.start_time]
    if not started:
        return None
    of_tick = {run.dagster_run.run_id for run in runs}
    ends: dict[str, float] = {}
    for step, keys in steps.items():
        made = [_made(instance, key, of_tick) for key in keys]
        times = [time for time in made if time is not None]
        if not times:
            return None
        ends[step] = max(times) - min(started)
    return Reaction(at=datetime.fromisoformat(moment), seconds=ends)


def _made(instance: dg.DagsterInstance, key: dg.AssetKey, runs: set[str]) -> float | None:
    """When one of these runs made the asset last (seconds since 1970)."""
    records = instance.fetch_materializations(key, limit=10_000).records
    return max((record.timestamp for record in records if record.run_id in runs), default=None)


def measure(*, quick: bool, echo: Callable[[str], object]) -> None:
    """A line a step: median and longest over the retrainings of the state that the environment names.

    Raises:
        MissingHistory: the state remembers no retraining.
    """
    profile = Profile.from_environment()
    project = load_project(profile.project)
    served = {service.model for service in project.services.values()}
    specs = [spec for spec in project.models.values() if spec.policy and spec.name in served]
    with open_instance(profile.dagster_home) as instance:
        found = [each for spec in specs for each in reactions(instance, project, spec)]
    if not found:
        raise MissingHistory(
            f"{profile.home} remembers no retraining, so there is no reaction to take apart; replay until one: "
            f"`ml-platform run --until 2013-05-01`"
        )
    shown = found[:1] if quick else found
    days = ", ".join(f"{each.at:%d %b}" for each in shown)
    echo(f"{len(shown)} retrainings ({days}): seconds from the first run on a day's data, median and longest")
    before = 0.0
    for step in shown[0].seconds:
        all_of = [each.seconds[step] for each in shown]
        echo(f"  {step:32}{median(all_of):8.1f}{max(all_of):8.1f}   {median(all_of) - before:+.1f}")
        before = median(all_of)
    echo(f"  {'wanted, until the shadow':32}{MOST_SECONDS:8}")
