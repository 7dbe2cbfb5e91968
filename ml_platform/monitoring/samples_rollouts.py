"""What the rollouts' files tell as numbers, and what the outbox of messages does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from ml_platform.monitoring.samples import Sample, one_of, sample
from ml_platform.spec import Project, RolloutPolicy
from ml_platform.stores.channels import CHANNELS
from ml_platform.stores.outbox import Outbox
from ml_platform.stores.rollout_state import Phase, RolloutFile, newest_look

PHASES: tuple[Phase, ...] = get_args(Phase)


def of_rollouts(serving: Path, project: Project) -> Iterator[Sample]:
    """Where each service's newest rollout stands and what it rests on. ``serving``: the folder of the services' files.

    Raises:
        HomeDamaged: a file is not a rollout's.
    """
    for policy in project.rollout_policies.values():
        file = RolloutFile(serving / policy.service / "rollout.json")
        stands = file.read()
        if stands is None:
            continue
        service = policy.service
        yield from one_of("rollout_phase", stands.phase, PHASES, "phase", service=service)
        yield sample("rollout_share", stands.share, service=service)
        yield sample("rollout_since_timestamp_seconds", stands.since.timestamp(), service=service)
        yield from _evidence(policy, newest_look(file, stands.number))


def _evidence(policy: RolloutPolicy, look: dict[str, Any] | None) -> Iterator[Sample]:
    yield sample("rollout_evidence_needed", 1 / policy.alpha, service=policy.service)
    for guard, found in (look or {}).get("guards", {}).items():
        own = {"service": policy.service, "guard": guard}
        yield sample("rollout_evidence_against", found["against"], **own)
        yield sample("rollout_evidence_in_favour", found["in_favour"], **own)
        for variant in ("canary", "champion"):
            yield sample("rollout_units", found[variant], **own, variant=variant)


def of_outbox(outbox: Outbox) -> Iterator[Sample]:
    """Messages that were taken and those that wait, by channel.

    Raises:
        HomeDamaged: the file is not the outbox any more.
    """
    messages = outbox.messages()
    for channel in CHANNELS:
        own = [one for one in messages if one.channel == channel]
        waiting = [one for one in own if one.taken is None]
        yield sample("alerts_taken", len(own) - len(waiting), channel=channel)
        yield sample("alerts_waiting", len(waiting), channel=channel)
        yield sample("alerts_tries", max((one.tries for one in waiting), default=0), channel=channel)
