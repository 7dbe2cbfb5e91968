"""`ml-platform bench fuzz`: wrong requests to a real service; none may be answered 5xx, none may end a worker.

Half of them are made by hand (``fuzz_bodies``), half by schemathesis from the description that the service gives of
itself, right ones and wrong ones.
"""

import contextlib
import http.client
import json
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from ml_platform.bench.fire_world import FireWorld, fire_world
from ml_platform.bench.fuzz_bodies import Fuzz, Wrong
from ml_platform.bench.serving_world import SERVICE
from ml_platform.serving.process import ServiceProcess, running
from ml_platform.spec import PlatformError
from ml_platform.stores.clock import Clock

_REQUESTS, _SEED = 10_000, 20260101
_TIMEOUT_SECONDS = 10
_NO_ANSWER = 0


@dataclass
class Outcome:
    """How many requests were answered with each status (0: there was no answer).

    broken: of those answered 500 or more, or not at all though they were whole, what the request was and the answer.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def note(self, status: int, what: str, answer: bytes, *, whole: bool = True) -> None:
        """One request."""
        self.statuses[status] += 1
        if status >= 500 or (whole and status == _NO_ANSWER):
            self.broken.append(f"{what}: {status} {answer[:300]!r}")

    @property
    def total(self) -> int:
        """All of them."""
        return self.statuses.total()


def by_hand(port: int, bodies: Mapping[str, Any], count: int, seed: int = _SEED) -> Outcome:
    """So many wrong requests, one after the other."""
    fuzz, outcome = Fuzz(bodies, seed), Outcome()
    for _ in range(count):
        wrong = fuzz.wrong()
        status, answer = sent(port, wrong)
        outcome.note(status, wrong.what, answer, whole=wrong.whole)
    return outcome


def sent(port: int, wrong: Wrong) -> tuple[int, bytes]:
    """Status and first bytes of the answer; whoever did not send a whole request goes away after that."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_SECONDS) as connection:
        with contextlib.suppress(ConnectionError):  # one that was refused before all of it was read
            connection.sendall(wrong.sent)
            if not wrong.whole:
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while b"\r\n\r\n" not in answer and (part := connection.recv(65536)):
                answer += part
    first = answer.split(b"\r\n", 1)[0].split()
    return int(first[1]) if len(first) > 1 and first[1].isdigit() else _NO_ANSWER, answer


def described(service: ServiceProcess, count: int) -> Outcome:
    """About so many requests that schemathesis makes of the service's own description.

    Raises:
        PlatformError: it is not installed.
    """
    try:
        import hypothesis
        import schemathesis
    except ImportError as error:
        raise PlatformError("schemathesis is missing; install it with `pip install -e '.[bench]'`") from error
    description = _description(service)
    schema = schemathesis.openapi.from_dict(description)
    schema.config.update(base_url=service.url)
    operations = [result.ok() for result in schema.get_all_operations()]
    outcome = Outcome()
    modes = [*schemathesis.GenerationMode]
    with_body = [operation for operation in operations if operation.method.upper() == "POST"]
    each = max(1, count // (len(with_body) * len(modes)))
    for operation in operations:
        for mode in modes:

            @hypothesis.seed(_SEED)
            @hypothesis.settings(
                max_examples=each,
                deadline=None,
                database=None,
                suppress_health_check=[*hypothesis.HealthCheck],
                phases=[hypothesis.Phase.generate],
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                response = case.call(timeout=_TIMEOUT_SECONDS)
                outcome.note(response.status_code, f"{case.method} {case.path} {case.body!r:.300}", response.content)

            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing of that kind can be made of it
                ask()
    return outcome


def _description(service: ServiceProcess) -> dict[str, Any]:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/docs.json")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found
    finally:
        connection.close()


def right_bodies(now: datetime) -> dict[str, Any]:
    """Of the made-up project, one that is accepted by each endpoint."""
    columns = {f"{view}_{n}": 0.5 if n < 12 else 7 for view in ("spending", "visits") for n in range(15)}
    moment = now.isoformat()
    event = {"ask": "fuzz", "user": 7, "happens": moment, "known_at": moment, "clicked": 1, **columns}
    rows = [{"ask": "fuzz", "user": 7}, {"ask": "fuzz 2", "user": None}]
    return {
        "/predict": {"rows": rows, "asked_at": moment},
        "/label": {"labels": [{"prediction_id": "fuzz", "value": 1, "known_at": moment}]},
        "/ingest": {"events": {"events": [event]}},
        "/model": {},
    }


def fuzz(world: FireWorld, count: int, echo: Callable[[str], object]) -> bool:
    """All of it; whether nothing broke."""
    with running(world.profile, SERVICE) as service:
        pid = service.child.pid
        parts = {"by hand": by_hand(service.port, right_bodies(Clock.wall()), count // 2)}
        parts["by schemathesis"] = described(service, count // 2)
        crashed = not service.running or service.child.pid != pid
        log = service.log.read_text()
    raised = log.count("Exception in ASGI application")
    for name, outcome in parts.items():
        told = ", ".join(f"{status}: {number:,}" for status, number in sorted(outcome.statuses.items()))
        echo(f"  {outcome.total:,} requests {name}; answers by status: {told}")
        for line in outcome.broken[:20]:
            echo(f"    {line}")
    broken = sum(len(outcome.broken) for outcome in parts.values())
    echo(
        f"  answered 5xx or not at all: {broken} (aim 0); exceptions that nobody caught: {raised}; "
        f"the worker died: {crashed}"
    )
    return not (broken or raised or crashed)


@click.command()
@click.option("--requests", default=_REQUESTS, show_default=True, type=click.IntRange(20))
def main(requests: int) -> None:
    """Wrong requests by hand and by schemathesis to a real service: no answer of 500, no crash."""
    with (
        tempfile.TemporaryDirectory(prefix="ml_platform_fuzz_") as folder,
        fire_world(Path(folder), versions=1) as made,
    ):
        if not fuzz(made, requests, click.echo):
            raise PlatformError("a request broke the service; see above")


if __name__ == "__main__":
    main()
