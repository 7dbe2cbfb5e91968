"""A lean load generator over raw sockets, in a process of its own: closed loop, or a given rate.

``python -m ml_platform.bench.serving_load PORT SECONDS CONNECTIONS RATE PID USERS [ASKED_AT]``: rate 0 sends on each
connection as soon as it was answered, any other sends so many a second at random moments, whether answers come or not,
and counts from the moment that a request was due. Prints one line of JSON.

It sleeps until something is due or arrives. The timers of an event loop count in milliseconds, so that a loop which
waits for less spins, and takes the core from the Redis beside it: p99 was twice as long then.
"""

import json
import os
import random
import select
import socket
import sys
from collections import deque
from pathlib import Path
from time import perf_counter

_WARM_SECONDS = 1.0
_BODIES = 20_000  # made beforehand
_PATIENCE_SECONDS = 0.1  # of a closed loop whose answers do not come: then it looks at the clock
_MOST_BYTES = 65_536


class _Load:
    """Connections that ask, each one request at a time, and what came back."""

    def __init__(self, port: int, requests: list[bytes], connections: int) -> None:
        self._requests, self._next = requests, 0
        self._arrivals = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(connections):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[connection.fileno()] = connection
            self._arrivals.register(connection.fileno(), select.EPOLLIN)
        self._idle = deque(self._sockets)
        self._due: deque[float] = deque()  # of requests that found no connection
        self._since: dict[int, float] = {}
        self._got = dict.fromkeys(self._sockets, b"")
        self.latencies: list[float] = []
        self.failed = self.answered = 0

    def closed(self, until: float) -> None:
        """Each connection asks again as soon as it was answered."""
        while (now := perf_counter()) < until:
            self._due.extend([now] * len(self._idle))
            self._send_due()
            self._receive(_PATIENCE_SECONDS)
            self._due.clear()

    def opened(self, until: float, dues: "_Moments") -> None:
        """Asks at these moments; what finds all connections busy waits, and its time counts."""
        while (now := perf_counter()) < until:
            self._due.extend(dues.passed(now))
            self._send_due()
            self._receive(min(dues.next, until) - perf_counter())

    def _send_due(self) -> None:
        while self._due and self._idle:
            number = self._idle.popleft()
            self._since[number] = self._due.popleft()
            self._next = (self._next + 1) % len(self._requests)
            self._sockets[number].sendall(self._requests[self._next])

    def _receive(self, seconds: float) -> None:
        # epoll counts in milliseconds, select in microseconds.
        if seconds > 0:
            select.select([self._arrivals], [], [], seconds)
        for number, _ in self._arrivals.poll(0):
            got = self._got[number] = self._got[number] + self._sockets[number].recv(_MOST_BYTES)
            if _is_whole(got):
                self._got[number] = b""
                self._idle.append(number)
                self.answered += 1
                self.failed += got[9:12] != b"200"
                self.latencies.append(perf_counter() - self._since[number])


class _Moments:
    """Random moments, so many a second."""

    def __init__(self, rate: float) -> None:
        self._rate, self._chance = rate, random.Random(2)
        self.next = perf_counter()

    def passed(self, now: float) -> list[float]:
        """Those until ``now`` that were not told yet."""
        found = []
        while self.next <= now:
            found.append(self.next)
            self.next += self._chance.expovariate(self._rate)
        return found


def _is_whole(got: bytes) -> bool:
    head = got.find(b"\r\n\r\n")
    if head < 0:
        if not got:
            raise ConnectionError("the server closed a connection")
        return False
    at = got.lower().find(b"content-length:", 0, head)
    if at < 0:
        raise ValueError(f"an answer without its length: {got[:200]!r}")
    return len(got) >= head + 4 + int(got[at + 15 : got.find(b"\r\n", at)])


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


def measured(load: _Load, seconds: float, rate: float, pid: int) -> dict[str, float]:
    """What came of so many seconds, after a moment to get warm."""
    dues = _Moments(rate) if rate else None

    def run(lasting: float) -> None:
        until = perf_counter() + lasting
        load.opened(until, dues) if dues else load.closed(until)

    run(_WARM_SECONDS)
    load.latencies = []
    began, answered, spent, own = perf_counter(), load.answered, cpu_seconds(pid), cpu_seconds(os.getpid())
    run(seconds)
    took, count = perf_counter() - began, load.answered - answered
    latencies = sorted(load.latencies)
    return {
        "rate": count / took,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1e3,
        "cpu_us": (cpu_seconds(pid) - spent) / count * 1e6,
        "generator_cpu": (cpu_seconds(os.getpid()) - own) / took,
        "failed": load.failed,
    }


def main() -> None:
    """See the module."""
    port, seconds, connections, rate, pid, users, *moment = sys.argv[1:]
    load = _Load(int(port), _requests(int(users), moment[0] if moment else None), int(connections))
    sys.stdout.write(json.dumps(measured(load, float(seconds), float(rate), int(pid))) + "\n")


if __name__ == "__main__":
    main()
