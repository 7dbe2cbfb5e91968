"""Which rollout a service has, and where it stands."""

from datetime import timedelta
from pathlib import Path

from ml_platform.resources.profiles import Profile
from ml_platform.spec import Project, RolloutPolicy, Service
from ml_platform.stores.clock import Clock
from ml_platform.stores.rollout_state import RolloutFile


def policy_of(project: Project, service: str) -> RolloutPolicy | None:
    """The service's rollout policy, if it has one."""
    return next((policy for policy in project.rollout_policies.values() if policy.service == service), None)


def rollout_file(profile: Profile, service: str) -> RolloutFile:
    """Where a service's rollout stands."""
    return RolloutFile(profile.home / "serving" / service / "rollout.json")


def assigned_by(project: Project, service: Service) -> tuple[str, ...]:
    """The entities whose values say who answers."""
    policy = policy_of(project, service.name)
    return (policy.assign_by if policy else ()) or (project.models[service.model].task.key,)


def heartbeat(file: RolloutFile) -> Path:
    """The file whose time says when a referee last looked."""
    return file.path.with_name("referee.alive")


def give_sign(path: Path) -> None:
    """Of a referee's life: the file's time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def is_watched(path: Path, within: timedelta) -> bool:
    """Whether there was a sign of life of late."""
    try:
        return Clock.wall().timestamp() - path.stat().st_mtime <= within.total_seconds()
    except FileNotFoundError:
        return False
