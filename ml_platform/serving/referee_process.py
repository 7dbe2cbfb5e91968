"""The referee as a process: ``python -m ml_platform.serving.referee_process``, beside a service's workers.

Started and started again by whoever serves. While it gives no sign of life, workers give no canary any traffic.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta

from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.champion import registry_errors
from ml_platform.serving.priority import give_way
from ml_platform.serving.referee import Referee
from ml_platform.serving.rollout_files import give_sign, heartbeat, policy_of, rollout_file
from ml_platform.serving.shadow import ShadowScorer
from ml_platform.spec import DeclarationError, PlatformError, UnknownName
from ml_platform.stores.clock import Clock
from ml_platform.stores.ledger import Ledger

logger = logging.getLogger(__name__)
_BUSY, _IDLE = timedelta(milliseconds=50), timedelta(milliseconds=500)  # between looks, with a rollout and without


def open_referee(profile: Profile, service: str) -> Referee:
    """The referee of a service, with the stores of the profile.

    Raises:
        UnknownName: the project declares no such service.
        DeclarationError: the service has no rollout policy.
    """
    project = load_project(profile.project)
    if service not in project.services:
        raise UnknownName("service", service, project.services)
    policy = policy_of(project, service)
    if policy is None:
        raise DeclarationError(
            f"service {service} has no rollout policy, so there is nothing to watch; declare a RolloutPolicy with "
            f"service={service!r} in the project's policies"
        )
    return Referee(
        service=service,
        policy=policy,
        file=rollout_file(profile, service),
        ledger=Ledger(profile.ledger_path),
        log=profile.log_path,
        timezone=project.timezone,
        shadow=ShadowScorer.open(profile, service),
    )


def watch(profile: Profile, service: str, stop: threading.Event) -> None:
    """Look again and again until told to stop; what cannot be read now is read at the next look."""
    referee, clock = open_referee(profile, service), Clock(profile.clock_path)
    passing: tuple[type[Exception], ...] = (PlatformError, *registry_errors())
    told = ""
    while True:
        running = False
        try:
            rollout = referee.look(clock.now())
            running = rollout is not None and rollout.runs
            give_sign(heartbeat(referee.file))
            told = ""
        except passing as error:
            if str(error) != told:
                logger.error("the rollout of %s cannot be judged now: %s", service, error)
            told = str(error)
        if stop.wait((_BUSY if running else _IDLE).total_seconds()):
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """For the parent, and for a container of its own (``ml-platform referee``)."""
    parser = argparse.ArgumentParser(description="Watches the rollouts of a service.")
    parser.add_argument("--service", required=True)
    parser.add_argument("--parent", type=int)
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if asked.parent is not None:
        threading.Thread(target=_until_orphaned, args=(asked.parent, stop), daemon=True).start()
    # Who answers people comes first, always. A referee that gets no core gives no sign of life, and then no canary
    # gets any traffic.
    give_way()
    try:
        watch(Profile.from_environment(), asked.service, stop)
    except PlatformError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _until_orphaned(parent: int, stop: threading.Event) -> None:
    while os.getppid() == parent:
        if stop.wait(0.5):
            return
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
