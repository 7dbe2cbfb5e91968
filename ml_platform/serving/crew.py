"""The workers of a service: processes that accept on one socket, replaced when they end or are to be replaced.

The parent holds the socket open, so that a connection for which no worker is there at the moment waits in the kernel.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from ml_platform.spec import ServiceError

STOP_WITHIN = timedelta(seconds=15)  # a little more than the child's own grace for requests in flight
_GROWN_SECONDS = 2.0  # a worker that answered for so long did not end because of how it was started
_MOST_YOUNG = 5  # deaths of others one after the other: the next would end as well
_TAIL_LINES = 25
_LOOK_SECONDS, _PAUSE_SECONDS = 0.02, 0.005


@dataclass
class Worker:
    """A process and the pipe on which it says that it answers.

    began: bytes of the log before it. launched, since: when it was started, and when it said that it answers
    (monotonic seconds). grown: it has answered for a while.
    """

    process: "subprocess.Popen[bytes]"
    pipe: int
    began: int
    launched: float
    since: float | None = None
    grown: bool = False

    def answers(self, within: float = 0.0) -> bool:
        """Whether it said so; waits for the word at most so many seconds."""
        if self.since is None and select.select([self.pipe], [], [], max(within, 0.0))[0] and os.read(self.pipe, 1):
            self.since = time.monotonic()
        return self.since is not None

    @property
    def is_grown(self) -> bool:
        """Whether it lives and has answered for a while."""
        alive = self.process.poll() is None
        return alive and self.since is not None and time.monotonic() - self.since > _GROWN_SECONDS


@dataclass
class Crew:
    """Workers of one service; only the thread that made it may use it.

    command: without the descriptors of the socket and the pipe. metrics: the folder of the Prometheus client's files.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    listening: socket.socket
    log: Path
    metrics: Path
    workers: list[Worker] = field(default_factory=list)
    _young: int = 0

    def launch(self) -> Worker:
        """One more; it is not waited for."""
        reading, writing = os.pipe()
        try:
            with self.log.open("ab") as output:
                began = output.tell()
                process = subprocess.Popen(
                    self._command(writing),
                    env=dict(self.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(self.listening.fileno(), writing),
                    start_new_session=True,  # Ctrl-C in a terminal is for us; we end the child when its work is done
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        worker = Worker(process=process, pipe=reading, began=began, launched=time.monotonic())
        self.workers.append(worker)
        return worker

    def _command(self, pipe: int) -> list[str]:
        descriptors = ["--fd", str(self.listening.fileno()), "--ready-fd", str(pipe)]
        command = [*self.command, *descriptors, "--parent", str(os.getpid())]
        if threading.current_thread() is threading.main_thread():
            command.append("--signal-on-death")
        return command

    def wait(self, worker: Worker, within: timedelta) -> None:
        """Until it answers.

        Raises:
            ServiceError: it ended before, or did not answer within that time of its start; shows the end of its log.
        """
        deadline = worker.launched + within.total_seconds()
        while not worker.answers(min(_LOOK_SECONDS, deadline - time.monotonic())):
            if worker.process.poll() is not None:
                raise ServiceError(
                    f"service {self.name} ended with code {worker.process.returncode} before it answered; the end of "
                    f"{self.log}:\n{self._tail(worker)}"
                )
            if time.monotonic() > deadline:
                host, port = self.listening.getsockname()
                seconds = f"{within.total_seconds():.0f} s"
                raise ServiceError(
                    f"service {self.name} did not answer on http://{host}:{port} within {seconds}; the end of "
                    f"{self.log}:\n{self._tail(worker)}"
                )
            time.sleep(_PAUSE_SECONDS)

    def tend(self, tell: Callable[[str], object]) -> None:
        """Start another worker for each that ended.

        Raises:
            ServiceError: they end again and again as soon as they are started.
        """
        for worker in [*self.workers]:
            if worker.since is None and worker.process.poll() is None and worker.answers():
                tell(f"worker {worker.process.pid} answers")
            if not worker.grown and worker.is_grown:
                worker.grown, self._young = True, 0
        for worker in [*self.workers]:
            if (code := worker.process.poll()) is None:
                continue
            self._bury(worker)
            self._young = 0 if worker.grown else self._young + 1
            if self._young >= _MOST_YOUNG:
                raise ServiceError(
                    f"service {self.name}: {self._young} workers ended one after the other as soon as they were "
                    f"started, the last one with code {code}; the end of {self.log}:\n{self._tail(worker)}"
                )
            tell(f"worker {worker.process.pid} ended with code {code}; another one is started")
            self.launch()

    def replace(self, within: timedelta, tell: Callable[[str], object]) -> None:
        """Every worker by a new one, one after the other; each goes only when its successor answers.

        Raises:
            ServiceError: a new one does not answer; the old ones stay.
        """
        for old in [*self.workers]:
            new = self.launch()
            try:
                self.wait(new, within)
            except ServiceError:
                self._end([new])
                raise
            self._end([old])
            tell(f"worker {new.process.pid} answers in place of {old.process.pid}")

    def stop(self) -> None:
        """Let requests in flight finish, then end all; by force if that takes too long."""
        self.listening.close()
        self._end([*self.workers])

    def _end(self, workers: list[Worker]) -> None:
        for worker in workers:
            worker.process.terminate()
        deadline = time.monotonic() + STOP_WITHIN.total_seconds()
        for worker in workers:
            end(worker.process, deadline)
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """What it counted counts on; what it had in hand does not."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.process.pid, str(self.metrics))  # type: ignore[no-untyped-call]
        os.close(worker.pipe)
        self.workers.remove(worker)

    def _tail(self, worker: Worker) -> str:
        text = self.log.read_bytes()[worker.began :].decode(errors="replace")
        return "\n".join(text.splitlines()[-_TAIL_LINES:])


def end(process: "subprocess.Popen[bytes]", deadline: float) -> None:
    """Wait for a process that was told to end; by force at the deadline (monotonic)."""
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()


def child_command(service_name: str, *, refereed: bool) -> tuple[str, ...]:
    """What a worker is started with, but for what only the parent knows."""
    command = (sys.executable, "-m", "ml_platform.serving.child", "--service", service_name)
    return (*command, "--refereed") if refereed else command
