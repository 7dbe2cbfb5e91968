"""What the drills of serving serve: the made-up project of the serving benchmark with several versions of its model.

It is served as people serve it: by ``ml-platform serve`` in a process of its own, which starts its workers.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_platform.bench.serving_world import MODEL, PROJECT, SEED, SERVICE, published, registered, tracking_of
from ml_platform.bench.serving_world import write_project as write
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.rollout_files import rollout_file
from ml_platform.spec import PlatformError
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.prediction_log import PredictionLog
from ml_platform.stores.rollout_state import RolloutFile
from ml_platform.stores.tracking import Tracking

TREES = 100
# No guard may end a rollout here: whoever drills moves it.
POLICIES: Mapping[str, str] = {
    f"{PROJECT}/policies/__init__.py": "",
    f"{PROJECT}/policies/shipping.py": f"""
from datetime import timedelta
from ml_platform.spec import RolloutPolicy
shipping = RolloutPolicy(service="{SERVICE}", shadow_units=10**9, step_units=10**9, latency=False, loss=False,
                         promote_on=("errors",), paired=False, gives_up_after=timedelta(days=36500), description="d")
del timedelta
""",
}
_WITHIN_SECONDS = 120
_CHILD = b"ml_platform.serving.child"


@dataclass(frozen=True, kw_only=True)
class FireWorld:
    """A state folder of the embedded profile with a champion.

    expected: the probability of each user, by version; ``broken``: a version that does not load.
    """

    folder: Path
    profile: Profile
    expected: Mapping[str, tuple[float, ...]]
    broken: int

    @property
    def tracking(self) -> Tracking:
        """The registry."""
        return tracking_of(self.profile)

    @property
    def log(self) -> PredictionLog:
        """What was answered."""
        return PredictionLog(self.profile.log_path)

    @property
    def rollout(self) -> RolloutFile:
        """Where the service's rollout stands."""
        return rollout_file(self.profile, SERVICE)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """The project of the folder, here and in the processes started from here."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), *sys.path]))
    sys.path.insert(0, str(folder))
    load_project.cache_clear()
    try:
        yield
    finally:
        load_project.cache_clear()
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] in (PROJECT, f"{PROJECT}_features")]:
            del sys.modules[name]
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def fire_world(folder: Path, *, versions: int = 3, trees: int = TREES) -> Iterator[FireWorld]:
    """Made in a folder; version 1 is the champion."""
    from ml_platform.training.lightgbm_trees import MODEL_FILE

    write(folder, POLICIES)
    with importable(folder):
        profile = Profile.at(folder / "home", project=PROJECT)
        inputs = published(OnlineStore(profile.online_path, PROJECT))
        expected = {}
        for number in range(versions):
            saved = folder / f"model {number}"
            version, model, _ = registered(profile, inputs, saved, trees=trees, seed=SEED + number)
            expected[str(version)] = tuple(model.predict(inputs).tolist())
        tracking = tracking_of(profile)
        (saved / MODEL_FILE).write_text("tree\nnonsense")
        none: dict[str, Any] = {"parameters": {}, "metrics": {}, "tags": {}}
        broken = tracking.register(MODEL, saved, estimator="lightgbm", run_name="broken", **none)
        tracking.promote(MODEL, 1)
        yield FireWorld(folder=folder, profile=profile, expected=expected, broken=broken.version)


@dataclass
class Foreground:
    """``ml-platform serve`` in a process of its own.

    first: its first workers. said: what it said so far: (monotonic seconds, line).
    """

    process: "subprocess.Popen[str]"
    port: int
    log: Path
    first: frozenset[int] = frozenset()
    said: list[tuple[float, str]] = field(default_factory=list)

    def workers(self) -> list[int]:
        """Ids of the workers that live, whether they answer yet or not."""
        found = []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if _CHILD in command.split(b"\0"):
                found.append(int(child))
        return sorted(found)

    def answering(self) -> dict[int, float]:
        """Since when each worker that lives has answered (monotonic seconds)."""
        since = dict.fromkeys(self.first, self.said[0][0])
        for moment, line in [*self.said]:
            if found := re.match(r"worker (\d+) answers", line):
                since[int(found[1])] = moment
        return {worker: since[worker] for worker in self.workers() if worker in since}

    def wait(self, true: Callable[[], bool], what: str) -> None:
        """Until it comes true.

        Raises:
            PlatformError: it did not in time, or the service ended.
        """
        deadline = time.monotonic() + _WITHIN_SECONDS
        while not true():
            if self.process.poll() is not None or time.monotonic() > deadline:
                told = "\n".join(line for _, line in self.said[-20:])
                raise PlatformError(f"{what} within {_WITHIN_SECONDS} s did not come true; the service said:\n{told}")
            time.sleep(0.02)

    def lines(self, text: str) -> int:
        """How often it said this."""
        return sum(text in line for _, line in [*self.said])


@contextmanager
def foreground(profile: Profile, service: str, workers: int) -> Iterator[Foreground]:
    """The service, which answers already."""
    command = [sys.executable, "-W", "ignore", "-m", "ml_platform.serving.process", "--service", service]
    home = {"ML_PLATFORM_HOME": str(profile.home), "ML_PLATFORM_PROJECT": profile.project}
    with subprocess.Popen(
        [*command, "--port", "0", "--workers", str(workers)],
        env={**os.environ, **home, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        served = Foreground(process=process, port=0, log=profile.log_path / f"service-{service}.txt")
        reader = threading.Thread(target=_listen, args=(served,), daemon=True)
        reader.start()
        try:
            served.wait(lambda: bool(served.lines("answers on http://")), "an answering service")
            served.port = int(served.said[0][1].split("http://127.0.0.1:")[1].split()[0])
            served.first = frozenset(served.workers())
            yield served
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            finally:
                process.kill()
                reader.join()


def _listen(served: Foreground) -> None:
    assert served.process.stdout is not None
    for line in served.process.stdout:
        served.said.append((time.monotonic(), line.rstrip()))
