"""The whole house on one page, in the order the data walks."""

import warnings

import dagster as dg

from ml_platform.automation.freshness import with_policies
from ml_platform.automation.partitions import daily
from ml_platform.automation.sensors import alert_sensors, automation_sensor
from ml_platform.decisions.assets import decision_assets
from ml_platform.evaluation.assets import evaluation_assets
from ml_platform.features.assets import feature_assets
from ml_platform.features.follow import Delivered
from ml_platform.monitoring.assets import monitoring_assets
from ml_platform.monitoring.telling import teller
from ml_platform.resources.bound import bound
from ml_platform.resources.production import production_resources
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.assets import serving_assets
from ml_platform.serving.online_read import online_reads
from ml_platform.sources.assets import source_assets
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home
from ml_platform.training.assets import by_hand_jobs, training_assets


@dg.definitions
def platform() -> dg.Definitions:
    """The definitions of the installation that the environment describes."""
    profile = Profile.from_environment()
    Home(profile.home).refuse_half_forgotten()
    return house(profile, clamp=True)


def house(profile: Profile, *, clamp: bool, delivered: Delivered | None = None) -> dg.Definitions:
    """Every asset of the profile's project.

    clamp: on a replayed state, leave out the days after the replay's clock, so that nothing can ask for them.
    delivered: what this process brings into the live windows itself.
    """
    # One run over a range of days is marked beta; it is pinned below 1.14 and tested.
    warnings.filterwarnings("ignore", message=".*backfill_policy.*", category=dg.BetaWarning)
    project = load_project(profile.project)
    replayed_at = Clock(profile.clock_path).replayed()
    days = daily(project, replayed_at if clamp else None)
    return with_policies(
        dg.Definitions(
            assets=[
                *source_assets(project, days),
                *feature_assets(project, days, delivered),
                *serving_assets(project, days),
                *monitoring_assets(project, days),
                *decision_assets(project),
                *training_assets(project, days),
                *evaluation_assets(project, online_reads),
            ],
            jobs=by_hand_jobs(project),
            # Data that have ended are replayed; the daemon's wall clock has nothing to ask of them.
            sensors=[
                automation_sensor(replayed=replayed_at is not None or project.ends is not None),
                *alert_sensors(teller(profile, project), replayed=replayed_at is not None),
            ],
            executor=dg.in_process_executor,  # a process a step costs seconds of imports; the steps are small
            resources={**bound(profile, project), **production_resources(profile)},
        )
    )
