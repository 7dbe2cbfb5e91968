"""Which rollout a service has, and where it stands."""

from ml_platform.resources.profiles import Profile
from ml_platform.spec import Project, RolloutPolicy, Service
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
