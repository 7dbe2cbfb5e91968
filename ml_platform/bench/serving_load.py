"""A lean load generator over raw sockets, in a process of its own: closed loop, or a given rate.

``python -m ml_platform.bench.serving_load PORT SECONDS CONNECTIONS RATE PID USERS [ASKED_AT]``: rate 0 sends on each
connection as soon as it was answered, any other sends so many a second at random moments, whether answers come or not,
and counts from the moment that a request was due. Prints one line of JSON.
"""

import asyncio
import json
import os
import random
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

_WARM_SECONDS = 1.0
_BODIES = 20_000  # made beforehand
_TICK_SECONDS = 0.0005


@dataclass
class _Run:
    """What is sent, and what came back."""

    requests: list[bytes]
    closed_loop: bool
    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    answered: int = 0
    next: int = 0
    idle: deque["_Caller"] = field(default_factory=deque)
    due: deque[float] = field(default_factory=deque)

    def body(self) -> bytes:
        self.next = (self.next + 1) % len(self.requests)
        return self.requests[self.next]


class _Caller(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self._transport: asyncio.WriteTransport | None = None
        self._since = 0.0
        self._expects = 0
        self._got = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one by its methods alone

    def send(self, since: float) -> None:
        assert self._transport is not None
        self._since = since
        self._transport.write(self.run.body())

    def data_received(self, data: bytes) -> None:
        got = self._got
        got += data
        if not self._expects:
            head = got.find(b"\r\n\r\n")
            if head < 0:
                return
            at = got.lower().find(b"content-length:", 0, head)
            if at < 0:
                raise ValueError(f"an answer without its length: {bytes(got[:200])!r}")
            self._expects = head + 4 + int(got[at + 15 : got.find(b"\r\n", at)])
        if len(got) < self._expects:
            return
        run = self.run
        run.answered += 1
        run.failed += got[9:12] != b"200"
        now = perf_counter()
        run.latencies.append(now - self._since)
        self._expects = 0
        got.clear()
        if run.closed_loop:
            self.send(now)
        elif run.due:
            self.send(run.due.popleft())
        else:
            run.idle.append(self)


def _requests(users: int, asked_at: str | None) -> list[bytes]:
    chance = random.Random(1)
    found = []
    for number in range(_BODIES):
        moment = {"asked_at": asked_at} if asked_at else {}
        body = json.dumps({"rows": [{"ask": f"q{number}", "user": chance.randrange(users)}], **moment}).encode()
        head = b"POST /predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        found.append(head % len(body) + body)
    return found


def cpu_seconds(pid: int) -> float:
    """Of a process and all its threads, so far; user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _load(
    port: int, seconds: float, connections: int, rate: float, pid: int, users: int, asked_at: str | None
) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    run = _Run(_requests(users, asked_at), rate == 0)
    callers = [(await loop.create_connection(lambda: _Caller(run), "127.0.0.1", port))[1] for _ in range(connections)]
    if rate:
        run.idle.extend(callers)
        sender = loop.create_task(_send_at(run, rate))
    else:
        for caller in callers:
            caller.send(perf_counter())
    await asyncio.sleep(_WARM_SECONDS)
    run.latencies = []
    began, answered, spent, own = perf_counter(), run.answered, cpu_seconds(pid), cpu_seconds(os.getpid())
    await asyncio.sleep(seconds)
    took, count = perf_counter() - began, run.answered - answered
    latencies = sorted(run.latencies)
    if rate:
        sender.cancel()
    return {
        "rate": count / took,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
        "cpu_us": (cpu_seconds(pid) - spent) / count * 1e6,
        "generator_cpu": (cpu_seconds(os.getpid()) - own) / took,
        "failed": run.failed,
    }


async def _send_at(run: _Run, rate: float) -> None:
    chance = random.Random(2)
    due = perf_counter()
    while True:
        now = perf_counter()
        while due <= now:
            if run.idle:
                run.idle.popleft().send(due)
            else:
                run.due.append(due)
            due += chance.expovariate(rate)
        await asyncio.sleep(min(_TICK_SECONDS, due - now))


def main() -> None:
    """See the module."""
    import uvloop

    port, seconds, connections, rate, pid, users, *moment = sys.argv[1:]
    asked_at = moment[0] if moment else None
    told = uvloop.run(_load(int(port), float(seconds), int(connections), float(rate), int(pid), int(users), asked_at))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
