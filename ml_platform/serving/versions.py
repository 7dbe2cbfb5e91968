"""Where a service's versions come from: the registry, or the image that it was shipped in."""

from datetime import timedelta

from ml_platform.resources.profiles import Profile
from ml_platform.serving.champion import ChampionWatch, load_champion, made_servable, registry_errors
from ml_platform.serving.registry_stamp import changed_at
from ml_platform.serving.rollout_files import assigned_by, heartbeat, is_watched, rollout_file
from ml_platform.serving.shipped import Shipped
from ml_platform.spec import DeclarationError, Project, Service
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.tracking import Tracking

_SIGN_OF_LIFE = timedelta(seconds=10)  # a referee gives one every half second
_NEVER = timedelta(days=1)  # what an image holds does not change


def registry_watch(profile: Profile, project: Project, service: Service, *, watched: bool) -> ChampionWatch:
    """The registry's champion, and the canary of the service's rollout.

    watched: a canary answers only while a referee gives signs of life.
    """
    spec = project.models[service.model]
    tracking, ledger = Tracking(profile.mlflow_uri, profile.mlflow_artifacts), Ledger(profile.ledger_path)
    scratch = profile.home / "serving" / service.name
    scratch.mkdir(parents=True, exist_ok=True)
    rollouts = rollout_file(profile, service.name)
    return ChampionWatch(
        find=lambda: tracking.champion(spec.name),
        load=lambda version: load_champion(tracking, ledger, version, spec.task, project.all_views, scratch),
        passing=registry_errors(),
        numbered=lambda number: tracking.version(spec.name, number),
        rollout=rollouts.read,
        watched=(lambda: is_watched(heartbeat(rollouts), _SIGN_OF_LIFE)) if watched else lambda: True,
        by=assigned_by(project, service),
        stamp=lambda: changed_at(profile.mlflow_uri),
    )


def shipped_watch(profile: Profile, project: Project, service: Service) -> ChampionWatch | None:
    """The one version of the image that we run in, without a registry and without a canary; None outside of one.

    Raises:
        DeclarationError: the image was made for another service.
        ModelRefused: its files are not those of its manifest.
    """
    if profile.image is None:
        return None
    shipped = Shipped.read(profile.image)
    if (shipped.service, shipped.model) != (service.name, service.model):
        raise DeclarationError(
            f"the image in {profile.image} holds version {shipped.version} of {shipped.model} for service "
            f"{shipped.service}, not {service.model} for {service.name}; make one with `ml-platform image "
            f"{service.name} --to FOLDER`"
        )
    spec, scratch = project.models[service.model], profile.home / "serving" / service.name
    scratch.mkdir(parents=True, exist_ok=True)
    with shipped.files(scratch) as files:
        found = made_servable(files, shipped.model, shipped.version, spec.task, project.all_views)
    return ChampionWatch(find=shipped.registered, load=lambda _: found, every=_NEVER)
