"""What a serving process counts, shown by BentoML's ``/metrics`` beside its own.

Counted in plain numbers and handed to the Prometheus client a few times a second: its counters of several processes are
written into mapped files, at more cost than a prediction.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from functools import cache
from typing import Any

FLUSH_SECONDS = 0.25
# Seconds of answering; a prediction takes about one thousandth.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Meters:
    """Requests by endpoint and status, seconds, those waiting and those in flight, rows answered together."""

    def __init__(self, service: str, registry: Any = None) -> None:
        """``service``: the value of the label ``service``; ``registry``: the Prometheus client's own if left out."""
        import prometheus_client as prometheus

        kept = registry or prometheus.REGISTRY
        one: dict[str, Any] = {"labelnames": ["service"], "registry": kept}
        live: dict[str, Any] = {"multiprocess_mode": "livesum"}  # of the processes that live, added up
        self._service = service
        self._requests = prometheus.Counter(
            "ml_platform_requests", "Requests answered.", ["service", "endpoint", "status"], registry=kept
        )
        self._seconds = prometheus.Histogram(
            "ml_platform_request_seconds",
            "Seconds to an answer.",
            ["service", "endpoint"],
            buckets=BUCKETS,
            registry=kept,
        )
        together = prometheus.Counter("ml_platform_turns", "Times that questions were answered together.", **one)
        questions = prometheus.Counter("ml_platform_turn_questions", "Questions answered in them.", **one)
        waiting = prometheus.Gauge("ml_platform_requests_waiting", "Predictions not answered yet.", **one, **live)
        in_flight = prometheus.Gauge("ml_platform_requests_in_flight", "Requests not answered yet.", **one, **live)
        self._turns, self._questions = together.labels(service), questions.labels(service)
        self._waiting, self._in_flight = waiting.labels(service), in_flight.labels(service)
        self.waiting = self.in_flight = 0
        self.turns = self.questions = 0
        self._counts: Counter[tuple[str, int]] = Counter()
        self._timed: dict[str, list[float]] = {}
        self._flush_at: asyncio.TimerHandle | None = None

    def count(self, endpoint: str, status: int, seconds: float) -> None:
        """A request that was answered."""
        self._counts[endpoint, status] += 1
        timed = self._timed.get(endpoint)
        if timed is None:
            timed = self._timed[endpoint] = [0.0] * (len(BUCKETS) + 2)  # of each bucket, of none, and the sum
        timed[bisect_left(BUCKETS, seconds)] += 1
        timed[-1] += seconds
        if self._flush_at is None:
            self._flush_at = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand over what was counted."""
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        for (endpoint, status), count in self._counts.items():
            self._requests.labels(self._service, endpoint, str(status)).inc(count)
        for endpoint, timed in self._timed.items():
            _add(self._seconds.labels(self._service, endpoint), timed)
        self._counts.clear()
        self._timed.clear()
        self._turns.inc(self.turns)
        self._questions.inc(self.questions)
        self.turns = self.questions = 0
        self._waiting.set(self.waiting)
        self._in_flight.set(self.in_flight)


@cache
def meters_of(service: str) -> Meters:
    """Those of this process; the Prometheus client takes a name once."""
    return Meters(service)


def _add(histogram: Any, timed: list[float]) -> None:
    """Many observations at once, into the places where ``observe`` puts each; a test compares the two."""
    *counts, seconds = timed
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(seconds)
