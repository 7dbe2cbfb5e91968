"""Starts the service as child processes on a socket bound here, and ends them."""

import argparse
import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.access import refuse_strangers
from ml_platform.serving.crew import STOP_WITHIN, Crew, child_command, end
from ml_platform.serving.rollout_files import policy_of
from ml_platform.spec import PlatformError, PortInUse, ServiceError, UnknownName
from ml_platform.stores.redis_settings import doubts

LOOPBACK = "127.0.0.1"
READY_WITHIN = timedelta(seconds=120)  # it takes about five seconds; a busy machine may take ten times as long
_LOOK_SECONDS = 0.2


@dataclass
class ServiceProcess:
    """A running service: its workers, and the referee beside them."""

    name: str
    host: str
    port: int
    log: Path
    crew: Crew
    referee: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def child(self) -> "subprocess.Popen[bytes]":
        """The worker that was started first."""
        return self.crew.workers[0].process

    @property
    def running(self) -> bool:
        """Whether a worker lives."""
        return any(worker.process.poll() is None for worker in self.crew.workers)

    def stop(self) -> None:
        """Let requests in flight finish, then end it; by force if that takes too long."""
        if self.referee is not None:
            self.referee.terminate()
        self.crew.stop()
        if self.referee is not None:
            end(self.referee, time.monotonic() + STOP_WITHIN.total_seconds())


@contextlib.contextmanager
def running(
    profile: Profile,
    service_name: str,
    *,
    port: int = 0,
    host: str = LOOPBACK,
    refereed: bool = False,
    referee_beside: bool = False,
    workers: int = 1,
    tended: bool = False,
) -> Iterator[ServiceProcess]:
    """A service for the length of a ``with`` block; see ``start``."""
    process = start(
        profile,
        service_name,
        port=port,
        host=host,
        refereed=refereed,
        referee_beside=referee_beside,
        workers=workers,
        tended=tended,
    )
    try:
        yield process
    finally:
        process.stop()


def start(
    profile: Profile,
    service_name: str,
    *,
    port: int = 0,
    host: str = LOOPBACK,
    ready_within: timedelta = READY_WITHIN,
    refereed: bool = False,
    referee_beside: bool = False,
    workers: int = 1,
    tended: bool = False,
) -> ServiceProcess:
    """Start the service (port 0: any free one) and wait until it answers; it need not have a champion yet.

    refereed: with a referee of its rollouts in a process beside it, if it has a rollout policy. Without, whoever starts
        it is the referee. referee_beside: somebody else starts that process, on the same state folder.
    workers: processes that answer, all on the one port.
    tended: whoever starts it looks after it (``crew.tend``). So the port stays taken while no worker lives, and callers
        wait; otherwise they are refused.

    Raises:
        UnknownName: the project declares no such service.
        PortInUse: somebody else listens there.
        ServiceError: it ended or did not answer in time (shows the end of its log), or has no keys for this host.
    """
    project = load_project(profile.project)
    declared = project.services
    if service_name not in declared:
        raise UnknownName("service", service_name, declared)
    refuse_strangers(profile, service_name, host)
    refereed = refereed and policy_of(project, service_name) is not None
    log = profile.log_path / f"service-{service_name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    listening = listen(host, port)
    crew = Crew(
        name=service_name,
        command=child_command(service_name, refereed=refereed),
        environment=environment_of(profile, service_name),
        listening=listening,
        log=log,
        metrics=_metrics(profile, service_name),
    )
    process = ServiceProcess(name=service_name, host=host, port=listening.getsockname()[1], log=log, crew=crew)
    try:
        begin_counting(profile, service_name)
        for _ in range(workers):
            crew.launch()
        if refereed and not referee_beside:
            process.referee = start_referee(profile, service_name)
        for worker in crew.workers:
            crew.wait(worker, ready_within)
        if not tended:
            listening.close()
    except BaseException:  # Ctrl-C while waiting must not leave a child behind either
        process.stop()
        raise
    return process


def start_referee(profile: Profile, service_name: str) -> "subprocess.Popen[bytes]":
    """The process that watches the service's rollouts; it ends with us."""
    log = profile.log_path / f"referee-{service_name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ml_platform.serving.referee_process", "--service", service_name]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            env={**environment_of(profile, service_name), "POLARS_MAX_THREADS": "1"},  # one core is enough
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # as the service
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. It listens at once, so that nobody else can take the port before the child accepts.

    Raises:
        PortInUse: somebody else listens there.
        ServiceError: the address cannot be had for another reason.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use by another process; end it (`ss -ltnp 'sport = :{port}'` names it), "
                f"choose another --port, or 0 for any free one"
            ) from error
        raise ServiceError(f"cannot listen on {host}, port {port} ({error}); choose another --port") from error
    return listening


def environment_of(profile: Profile, service_name: str) -> dict[str, str]:
    """Ours, and everything that keeps a serving process inside the state folder and on one core."""
    return {
        **os.environ,
        "ML_PLATFORM_PROFILE": profile.name,
        "ML_PLATFORM_HOME": str(profile.home),
        "ML_PLATFORM_PROJECT": profile.project,
        "ML_PLATFORM_KEYS": profile.keys,
        **({"ML_PLATFORM_IMAGE": str(profile.image)} if profile.image else {}),
        "BENTOML_HOME": str(profile.home / "bentoml" / service_name),
        "PROMETHEUS_MULTIPROC_DIR": str(_metrics(profile, service_name)),
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "OMP_NUM_THREADS": "1",  # a row takes microseconds; waking other cores for it costs more
    }


def begin_counting(profile: Profile, service_name: str) -> None:
    """Make the folder for the counters of a service that starts: those of dead processes would be added to ours."""
    folder = _metrics(profile, service_name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _metrics(profile: Profile, service_name: str) -> Path:
    """The folder in which the workers count, each in files of its own."""
    return profile.home / "bentoml" / service_name / "prometheus"


def serve(
    profile: Profile,
    service_name: str,
    port: int,
    *,
    host: str = LOOPBACK,
    referee_beside: bool = False,
    workers: int = 1,
    announce: Callable[[str], object],
) -> None:
    """Run the service in the foreground until Ctrl-C, SIGTERM or its end; SIGHUP replaces its workers one by one.

    Workers and the referee that end are started again.

    Raises:
        ServiceError: it did not start, or its workers end again and again as soon as they are started.
    """
    replace = threading.Event()
    previous = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, lambda *_: replace.set()),
    }
    try:
        serves = running(
            profile,
            service_name,
            port=port,
            host=host,
            refereed=True,
            referee_beside=referee_beside,
            workers=workers,
            tended=True,
        )
        with serves as process:
            announce(f"service {service_name} answers on {process.url} (log: {process.log}); Ctrl-C ends it")
            for doubt in doubts(profile.redis_url) if profile.redis_url else ():
                announce(doubt)
            while True:
                process.crew.tend(announce)
                _tend_referee(profile, process, announce)
                if replace.is_set():
                    replace.clear()
                    _replace(profile, process, announce)
                # Polars' hook on Ctrl-C lets the kernel go on with a wait, so that Python would never hear of it.
                time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        announce(f"service {service_name} ended")
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _tend_referee(profile: Profile, process: ServiceProcess, announce: Callable[[str], object]) -> None:
    if process.referee is not None and process.referee.poll() is not None:
        announce(f"the referee ended with code {process.referee.returncode}; another one is started")
        process.referee = start_referee(profile, process.name)


def _replace(profile: Profile, process: ServiceProcess, announce: Callable[[str], object]) -> None:
    """Workers and referee by new ones, which load project and code as they are now."""
    try:
        process.crew.replace(READY_WITHIN, announce)
    except ServiceError as error:
        announce(f"the workers that answer stay, for a new one does not: {error}")
        return
    if process.referee is not None:
        process.referee.terminate()
        end(process.referee, time.monotonic() + STOP_WITHIN.total_seconds())
        process.referee = start_referee(profile, process.name)
    announce(f"service {process.name} was replaced")


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m ml_platform.serving.process --service NAME --port N``."""
    parser = argparse.ArgumentParser(description="Run a prediction service on the loopback interface.")
    parser.add_argument("--service", required=True)
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args(arguments)
    try:
        serve(Profile.from_environment(), asked.service, asked.port, announce=_say, workers=asked.workers)
    except PlatformError as error:
        _say(f"error: {error}")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
