"""What a retraining that gives way costs the service on the same two cores: by turns with and without it.

The service stands on one core, load generator and Redis on the other; the retraining takes what is left of both.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_platform.bench.fire_shadow import LOADED, Turns
from ml_platform.bench.fire_world import importable
from ml_platform.bench.serving import Load, Server, load
from ml_platform.bench.serving_world import (
    AS_OF,
    OTHER_CORE,
    PROJECT,
    SEED,
    SERVER_CORE,
    SERVICE,
    TREES,
    World,
    pin,
    registered,
    served_inputs,
    world,
)
from ml_platform.resources.profiles import Profile
from ml_platform.serving.priority import give_way
from ml_platform.serving.process import running
from ml_platform.spec import PlatformError


def retraining(seconds: float, rounds: int) -> Turns:
    """So many turns of each, of so many seconds.

    Raises:
        PlatformError: there is no redis-server to start, or the retraining ended by itself.
    """
    with tempfile.TemporaryDirectory(prefix="ml_platform_retraining_") as name:
        folder = Path(name)
        with importable(folder), world(folder, OTHER_CORE) as made:
            os.environ.update(made.environment())
            with running(made.profile, SERVICE) as service:
                pin(service.child.pid, SERVER_CORE)
                server = Server(port=service.port, pid=service.child.pid)
                rate = LOADED * load(server, min(seconds, 3.0), asked_at=AS_OF).rate
                without, beside = list[Load](), list[Load]()
                for number in range(rounds + 1):
                    turns = [load(server, seconds, rate=rate, asked_at=AS_OF)]
                    with _retraining(made, folder / f"retrained {number}"):
                        turns.append(load(server, seconds, rate=rate, asked_at=AS_OF))
                    if number:  # the first warms up
                        without.append(turns[0])
                        beside.append(turns[1])
    return Turns(without=without, beside=beside, rate=rate)


@contextmanager
def _retraining(made: World, folder: Path) -> Iterator[None]:
    """One after the other, in a process of its own, from the first one on that was registered."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "ml_platform.bench.fire_retraining",
        str(made.profile.home),
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise PlatformError(f"the retraining ended with {process.wait()} before it had registered a version")
            yield
            if process.poll() is not None:
                raise PlatformError(f"the retraining ended with {process.returncode} while it was wanted")
        finally:
            process.kill()


def main(home: str, folder: str) -> None:
    """Train and register until killed, giving way."""
    give_way()
    profile, inputs, number = Profile.at(Path(home), project=PROJECT), served_inputs(), 0
    while True:
        registered(profile, inputs, Path(folder) / str(number), trees=TREES, seed=SEED + number)
        number += 1
        if number == 1:
            sys.stdout.write("registered\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
