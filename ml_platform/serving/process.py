"""Starts the service as a child process on a socket bound here, and ends it."""

import argparse
import contextlib
import errno
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.access import refuse_strangers
from ml_platform.serving.rollout_files import policy_of
from ml_platform.spec import PlatformError, PortInUse, ServiceError, UnknownName
from ml_platform.stores.redis_settings import doubts

LOOPBACK = "127.0.0.1"
READY_WITHIN = timedelta(seconds=120)  # it takes about five seconds; a busy machine may take ten times as long
_STOP_WITHIN = timedelta(seconds=15)  # a little more than the child's own grace for requests in flight
_TAIL_LINES = 25
_LOOK_SECONDS = 0.2


@dataclass
class ServiceProcess:
    """A running child, and the referee beside it."""

    name: str
    host: str
    port: int
    log: Path
    child: subprocess.Popen[bytes]
    referee: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the child lives."""
        return self.child.poll() is None

    def stop(self) -> None:
        """Let requests in flight finish, then end it; by force if that takes too long."""
        children = [child for child in (self.child, self.referee) if child is not None]
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(_STOP_WITHIN.total_seconds())
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextlib.contextmanager
def running(
    profile: Profile,
    service_name: str,
    *,
    port: int = 0,
    host: str = LOOPBACK,
    refereed: bool = False,
    referee_beside: bool = False,
) -> Iterator[ServiceProcess]:
    """A service for the length of a ``with`` block; see ``start``."""
    process = start(profile, service_name, port=port, host=host, refereed=refereed, referee_beside=referee_beside)
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
) -> ServiceProcess:
    """Start the service (port 0: any free one) and wait until it answers; it need not have a champion yet.

    refereed: with a referee of its rollouts in a process beside it, if it has a rollout policy. Without, whoever starts
        it is the referee. referee_beside: somebody else starts that process, on the same state folder.

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
    with listen(host, port) as listening, log.open("ab") as output:
        began = output.tell()
        bound = listening.getsockname()[1]
        environment = environment_of(profile, service_name)
        child = subprocess.Popen(
            _command(service_name, listening.fileno(), refereed),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(listening.fileno(),),
            start_new_session=True,  # Ctrl-C in a terminal is for us; we end the child when its work is done
        )
    referee = start_referee(profile, service_name, environment) if refereed and not referee_beside else None
    process = ServiceProcess(name=service_name, host=host, port=bound, log=log, child=child, referee=referee)
    try:
        _wait(process, ready_within, began)
    except BaseException:  # Ctrl-C while waiting must not leave a child behind either
        process.stop()
        raise
    return process


def start_referee(
    profile: Profile, service_name: str, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """The process that watches the service's rollouts; it ends with us."""
    log = profile.log_path / f"referee-{service_name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ml_platform.serving.referee_process", "--service", service_name]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            env=environment or environment_of(profile, service_name, fresh=False),
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


def _command(service_name: str, descriptor: int, refereed: bool) -> list[str]:
    command = [sys.executable, "-m", "ml_platform.serving.child", "--service", service_name]
    command += ["--fd", str(descriptor), "--parent", str(os.getpid())]
    if threading.current_thread() is threading.main_thread():
        command.append("--signal-on-death")
    if refereed:
        command.append("--refereed")
    return command


def environment_of(profile: Profile, service_name: str, *, fresh: bool = True) -> dict[str, str]:
    """Ours, and everything that keeps a serving process inside the state folder and on one core; makes its folders.

    fresh: a service begins to count; False: one that runs goes on.
    """
    bento_home = profile.home / "bentoml" / service_name
    metrics = bento_home / "prometheus"
    if fresh:
        shutil.rmtree(metrics, ignore_errors=True)  # counters of dead processes would be added to ours
    metrics.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "ML_PLATFORM_PROFILE": profile.name,
        "ML_PLATFORM_HOME": str(profile.home),
        "ML_PLATFORM_PROJECT": profile.project,
        "ML_PLATFORM_KEYS": profile.keys,
        **({"ML_PLATFORM_IMAGE": str(profile.image)} if profile.image else {}),
        "BENTOML_HOME": str(bento_home),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "OMP_NUM_THREADS": "1",  # a row takes microseconds; waking other cores for it costs more
    }


def _wait(process: ServiceProcess, within: timedelta, log_began: int) -> None:
    deadline = time.monotonic() + within.total_seconds()
    while not _alive(process):
        if not process.running:
            raise ServiceError(
                f"service {process.name} ended with code {process.child.returncode} before it answered; the end of "
                f"{process.log}:\n{_tail(process.log, log_began)}"
            )
        if time.monotonic() > deadline:
            raise ServiceError(
                f"service {process.name} did not answer on {process.url} within {within.total_seconds():.0f} s; the "
                f"end of {process.log}:\n{_tail(process.log, log_began)}"
            )
        time.sleep(0.05)


def _alive(process: ServiceProcess) -> bool:
    connection = http.client.HTTPConnection(process.host, process.port, timeout=1)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tail(log: Path, began: int) -> str:
    text = log.read_bytes()[began:].decode(errors="replace")
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def serve(
    profile: Profile,
    service_name: str,
    port: int,
    *,
    host: str = LOOPBACK,
    referee_beside: bool = False,
    announce: Callable[[str], object],
) -> None:
    """Run the service in the foreground until Ctrl-C, SIGTERM or its end.

    Raises:
        ServiceError: it did not start, or ended by itself.
    """
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serves = running(profile, service_name, port=port, host=host, refereed=True, referee_beside=referee_beside)
        with serves as process:
            announce(f"service {service_name} answers on {process.url} (log: {process.log}); Ctrl-C ends it")
            for doubt in doubts(profile.redis_url) if profile.redis_url else ():
                announce(doubt)
            while (code := process.child.poll()) is None:
                if process.referee is not None and process.referee.poll() is not None:
                    announce(f"the referee ended with code {process.referee.returncode}; another one is started")
                    process.referee = start_referee(profile, service_name)
                # Polars' hook on Ctrl-C lets the kernel go on with a wait, so that Python would never hear of it.
                time.sleep(_LOOK_SECONDS)
        raise ServiceError(f"service {service_name} ended by itself with code {code}; its log is {process.log}")
    except KeyboardInterrupt:
        announce(f"service {service_name} ended")
    finally:
        signal.signal(signal.SIGTERM, previous)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m ml_platform.serving.process --service NAME --port N``."""
    parser = argparse.ArgumentParser(description="Run a prediction service on the loopback interface.")
    parser.add_argument("--service", required=True)
    parser.add_argument("--port", type=int, default=3000)
    asked = parser.parse_args(arguments)
    try:
        serve(Profile.from_environment(), asked.service, asked.port, announce=_say)
    except PlatformError as error:
        _say(f"error: {error}")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
