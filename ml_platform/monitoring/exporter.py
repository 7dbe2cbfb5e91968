"""The platform's metrics page: reads the state folder when it is asked, writes nothing, and may be killed at any time.

Each part of the state is read apart: one that cannot be read is told of as such, and the others go on being told.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_platform.automation.standing import standing
from ml_platform.monitoring.samples import METRICS, PREFIX, STATES, Sample, one_of, sample
from ml_platform.monitoring.samples_lake import of_drift, of_incidents, of_performance, of_tables
from ml_platform.monitoring.samples_ledger import of_chain, of_ledger
from ml_platform.monitoring.samples_rollouts import of_outbox, of_rollouts
from ml_platform.resources.profiles import Profile
from ml_platform.spec import Project
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.outbox import Outbox
from ml_platform.stores.unreadable import UNREADABLE

logger = logging.getLogger(__name__)
KEPT_SECONDS = 5.0  # a second look within that is told the same: several may ask
_CHAIN_SECONDS = 600.0  # the whole chain is read, a second for ten thousand lines
Read = Callable[[], Iterable[Sample]]


@dataclass(eq=False)  # the Prometheus client keeps collectors by their identity
class Exporter:
    """A collector as the Prometheus client wants them: ``collect`` gives every metric there is something to say of."""

    parts: Mapping[str, Read]
    kept_for: Mapping[str, float] = field(default_factory=dict)
    _kept: dict[str, tuple[float, list[Sample]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def samples(self) -> list[Sample]:
        """Of all parts, and how reading them went."""
        with self._lock:  # who asks meanwhile is told the same afterwards
            return [one for part in self.parts for one in self._part(part)]

    def collect(self) -> Iterator[Any]:
        """As families of the Prometheus client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        by_name: dict[str, list[Sample]] = {}
        for one in self.samples():
            by_name.setdefault(one.name, []).append(one)
        for name, metric in METRICS.items():
            if name in by_name:
                family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                found = family(PREFIX + name, metric.help, labels=metric.labels)
                for one in by_name[name]:
                    found.add_metric([one.labels[label] for label in metric.labels], one.value)
                yield found

    def _part(self, part: str) -> list[Sample]:
        read_at, found = self._kept.get(part, (float("-inf"), []))
        if time.monotonic() - read_at < self.kept_for.get(part, KEPT_SECONDS):
            return found
        began = time.perf_counter()
        try:
            found, failed = list(self.parts[part]()), False
        except UNREADABLE as error:
            logger.warning("the part %s cannot be read: %s", part, error)
            found, failed = [], True  # nothing old: what cannot be read is not known
        seconds = time.perf_counter() - began
        found = [*found, sample("read_failed", failed, part=part), sample("read_seconds", seconds, part=part)]
        self._kept[part] = (time.monotonic(), found)
        return found


def exporter(profile: Profile, project: Project) -> Exporter:
    """Of one state folder. Nothing is opened before it is asked."""
    lake, ledger = Lake(profile.lake, profile.storage_options), Ledger(profile.ledger_path)
    clock, outbox = Clock(profile.clock_path), Outbox(profile.outbox_path)
    parts: dict[str, Read] = {
        "platform": lambda: _of_platform(profile, project, clock),
        "tables": lambda: of_tables(lake, project),
        "checks": lambda: of_checks(profile.dagster_home, profile.dagster_storage),
        "incidents": lambda: of_incidents(lake, project, profile.pages, clock.now()),
        "drift": lambda: of_drift(lake, project),
        "performance": lambda: of_performance(lake, project),
        "ledger": lambda: of_ledger(ledger, project),
        "chain": lambda: of_chain(ledger),
        "rollouts": lambda: of_rollouts(profile.serving_path, project),
        "outbox": lambda: of_outbox(outbox),
    }
    return Exporter(parts=parts, kept_for={"chain": _CHAIN_SECONDS})


def of_checks(dagster_home: Path, postgres_url: str | None) -> Iterator[Sample]:
    """Checks and deadlines as Dagster recorded them."""
    for one in standing(dagster_home, postgres_url):
        if one.check is None:
            yield from one_of("freshness_state", one.state, STATES, "state", asset=one.asset)
        else:
            yield from one_of("check_state", one.state, STATES, "state", asset=one.asset, check=one.check)


def _of_platform(profile: Profile, project: Project, clock: Clock) -> Iterator[Sample]:
    yield sample("info", 1, project=project.name, dagster=profile.pages.dagster)
    yield sample("clock_timestamp_seconds", clock.now().timestamp())
    yield sample("clock_replayed", clock.replayed() is not None)
