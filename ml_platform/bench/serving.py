"""`ml-platform bench serving`: our service beside BentoML and FastAPI doing the same work, each on one core.

Answers are compared to the bit before anything is timed. Servers stand in processes of their own, all on one core, of
which one works at a time; load generator and Redis share the other. Arms take turns; a line is the median of its turns.
"""

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import click

from ml_platform.bench.arms import machine
from ml_platform.bench.serving_peers import ARMS
from ml_platform.bench.serving_world import ENTITIES, OTHER_CORE, SERVER_CORE, SERVICE, World, pin, world
from ml_platform.serving.process import listen, running
from ml_platform.spec import PlatformError

LEAST_RATE, MOST_CPU_US, MOST_P99_MS = 8_000, 110, 5.0
TIMES_BENTOML, TIMES_FASTAPI = 8.0, 2.0
CONNECTIONS, LOADED = 32, 0.7  # of our rate, for the open loop
_COMPARED = 300
_OURS = "ours"
_READY_SECONDS = 60
_TITLES: Mapping[str, str] = {
    _OURS: "ours",
    "bentoml": "BentoML as it comes",
    "bentoml_tuned": "BentoML tuned",
    "fastapi": "FastAPI as it comes",
    "fastapi_tuned": "FastAPI tuned",
    "static": "a static answer (ceiling)",
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that answers."""

    port: int
    pid: int


@dataclass(frozen=True, kw_only=True)
class Load:
    """One turn of an arm: answers a second, milliseconds, microseconds of the server's CPU an answer."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    failed: int
    generator_cpu: float


@contextmanager
def peer(arm: str, made: World) -> Iterator[Server]:
    """A peer's process."""
    with listen("127.0.0.1", 0) as listening, (made.folder / f"{arm}.txt").open("wb") as output:
        port = listening.getsockname()[1]
        metrics = made.folder / f"metrics_{arm}"
        metrics.mkdir()
        words = [arm, str(made.model_file), str(made.redis_port), str(made.folder / f"{arm}.log")]
        command = [sys.executable, "-W", "ignore", "-m", "ml_platform.bench.serving_peers", *words]
        own = {"OMP_NUM_THREADS": "1", "BENTOML_HOME": str(made.folder / f"home_{arm}")}
        child = subprocess.Popen(
            [*command, str(listening.fileno())],
            env={**os.environ, **own, "PROMETHEUS_MULTIPROC_DIR": str(metrics), "BENTOML_DO_NOT_TRACK": "True"},
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(listening.fileno(),),
        )
    try:
        yield Server(port=port, pid=child.pid)
    finally:
        child.terminate()
        child.wait()


def ask(server: Server, users: list[int]) -> list[float]:
    """The probability of each user, asked one by one.

    Raises:
        PlatformError: it does not answer.
    """
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_READY_SECONDS)
        try:
            return [_ask(connection, number, user) for number, user in enumerate(users)]
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise PlatformError(f"the server on port {server.port} does not answer ({error})") from error
            time.sleep(0.1)
        finally:
            connection.close()


def _ask(connection: http.client.HTTPConnection, number: int, user: int) -> float:
    body = json.dumps({"rows": [{"ask": f"c{number}", "user": user}]})
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise PlatformError(f"a server answered {response.status}: {content[:300]!r}")
    (answer,) = json.loads(content)["predictions"]
    if answer["prediction_id"] != f"c{number}":
        raise PlatformError(f"a server answered another question: {answer}")
    return float(answer["probability"])


def load(
    server: Server, seconds: float, *, rate: float = 0, connections: int = CONNECTIONS, asked_at: datetime | None = None
) -> Load:
    """One turn; ``asked_at``: None is now."""
    words = [str(each) for each in (server.port, seconds, connections, rate, server.pid, ENTITIES)]
    words += [asked_at.isoformat()] if asked_at else []
    command = [sys.executable, "-m", "ml_platform.bench.serving_load", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as generator:
        pin(generator.pid, OTHER_CORE)
        said, _ = generator.communicate()
    if generator.returncode:
        raise PlatformError(f"the load generator ended with {generator.returncode}")
    return Load(**json.loads(said))


def measure(*, quick: bool = False, echo: Callable[[str], object] = click.echo) -> None:
    """All of it. ``quick``: short turns and few, to see that it works, not to quote.

    Raises:
        PlatformError: fewer than two cores, no redis-server, or an arm that answers otherwise.
    """
    if len(os.sched_getaffinity(0)) <= OTHER_CORE:
        raise PlatformError("servers and load need a core each; this machine has one")
    echo(f"{machine(['lightgbm', 'bentoml', 'fastapi', 'uvicorn', 'msgspec'])}; load {os.getloadavg()[0]:.1f}")
    seconds, rounds = (1.0, 1) if quick else (5.0, 5)
    with tempfile.TemporaryDirectory(prefix="ml_platform_bench_") as name, world(Path(name), OTHER_CORE) as made:
        os.environ.update(made.environment())
        with ExitStack() as stack:
            ours = stack.enter_context(running(made.profile, SERVICE))
            servers = {_OURS: Server(port=ours.port, pid=ours.child.pid)}
            servers |= {arm: stack.enter_context(peer(arm, made)) for arm in ARMS}
            compare(servers, made)
            echo(f"{_COMPARED} answers of each arm equal to Booster.predict to the bit; {CONNECTIONS} connections")
            turns: dict[str, list[Load]] = {arm: [] for arm in servers}
            for _ in range(rounds):
                for arm, some in turns.items():
                    some.append(load(servers[arm], seconds))
            summary(turns, echo)
            wanted = LOADED * median(turn.rate for turn in turns[_OURS])
            opened = [load(servers[_OURS], seconds, rate=wanted, connections=8 * CONNECTIONS) for _ in range(rounds)]
            _open(opened, wanted, echo)


def compare(servers: Mapping[str, Server], made: World) -> None:
    """Each arm's answers, but the static one's, beside ``Booster.predict``; and put all on one core.

    Raises:
        PlatformError: an answer differs in any bit.
    """
    users = [number * 13 % ENTITIES for number in range(_COMPARED)]
    for arm, server in servers.items():
        if arm == "static":
            ask_static(server)
        elif ask(server, users) != [made.expected[user] for user in users]:
            raise PlatformError(f"{arm} answers otherwise than Booster.predict; nothing was timed")
        pin(server.pid, SERVER_CORE)


def ask_static(server: Server) -> None:
    """Wait until it answers."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        try:
            connection.request("POST", "/predict", "{}")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.1)
        else:
            return
        finally:
            connection.close()


def summary(turns: Mapping[str, list[Load]], echo: Callable[[str], object]) -> None:
    """A line an arm, and how many times its rate and its CPU ours are."""
    rate = {arm: median(turn.rate for turn in some) for arm, some in turns.items()}
    cpu = {arm: median(turn.cpu_us for turn in some) for arm, some in turns.items()}
    for arm, some in turns.items():
        p50, p99 = median(turn.p50_ms for turn in some), median(turn.p99_ms for turn in some)
        failed = sum(turn.failed for turn in some)
        wrong = f"; {failed} FAILED" if failed else ""
        echo(
            f"  {_TITLES[arm]:27}{rate[arm]:9,.0f}/s  p50 {p50:6.2f} ms  p99 {p99:7.2f} ms{cpu[arm]:8.0f} us CPU"
            f"{rate[_OURS] / rate[arm]:8.1f} x ours, CPU {cpu[arm] / cpu[_OURS]:5.1f}{wrong}"
        )
    echo(
        f"  wanted: at least {LEAST_RATE:,}/s, at most {MOST_CPU_US} us, {TIMES_BENTOML:g} times BentoML as it comes, "
        f"{TIMES_FASTAPI:g} times FastAPI"
    )


def _open(turns: list[Load], wanted: float, echo: Callable[[str], object]) -> None:
    rate, p50, p99 = (median(getattr(turn, what) for turn in turns) for what in ("rate", "p50_ms", "p99_ms"))
    failed = sum(turn.failed for turn in turns)
    echo(
        f"  ours at {wanted:,.0f}/s, sent at random moments whether answers come or not: {rate:,.0f}/s answered, "
        f"p50 {p50:.2f} ms, p99 {p99:.2f} ms (at most {MOST_P99_MS:g} wanted), {failed} failed"
    )


@click.command()
@click.option("--quick", is_flag=True, help="Short turns and few: to see that it works, not to quote.")
def main(quick: bool) -> None:
    """Serving: equal answers first, then answers a second, latency and CPU beside BentoML and FastAPI."""
    measure(quick=quick)


if __name__ == "__main__":
    main()
