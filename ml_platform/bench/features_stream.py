"""Streaming: how many events a second one consumer applies to Redis, and how soon an event is seen by a reader.

Run it: ``python -m ml_platform.bench.features_stream``. Real rows of the project's tables go onto a real stream in the
order in which they became known; the consumer does all that it does in production: read, check, judge by the contract,
write the tiles, acknowledge. It wants a Redis that has nothing better to do, and removes what it wrote.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any

import click
import numpy as np
import redis

from ml_platform.bench.arms import machine
from ml_platform.features.follow import followed
from ml_platform.features.live import LiveViews
from ml_platform.features.live_view import micros
from ml_platform.features.live_whole import BEGINNING, Following
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving.consumer import Consumer
from ml_platform.serving.events import Ingestor
from ml_platform.serving.garbage import settle
from ml_platform.spec import KNOWN_AT, Project
from ml_platform.stores.delta import Lake
from ml_platform.stores.event_stream import EventStream
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.tiles_redis import RedisTiles

URL = "redis://127.0.0.1:6379/12"
START = datetime(2013, 3, 1, tzinfo=UTC)
NOW = datetime(2014, 1, 2, tzinfo=UTC)  # after all of the project's rows
FILLED_WITH = timedelta(days=14)  # rows that the store holds before anything is timed
BATCHES = (100, 500, 1000)
EVENTS_A_SECOND, P99_MS = 5_000, 50  # the bars
_ORIGIN_OF_TIME = datetime(1, 1, 2, tzinfo=UTC)  # a reference table is read from here on
_PROBE = "flight_outcomes"  # the table whose event is waited for; its rows stand in six live views
_BESIDE_A_SECOND = 500  # other events while one is waited for

Event = tuple[str, dict[str, Any]]


def events(project: Project, start: datetime, end: datetime) -> list[Event]:
    """The rows that became known in [start, end), of all tables of events, in that order."""
    found = [
        (row[KNOWN_AT], name, row)
        for name, table in sorted(project.tables.items())
        if table.partitioned
        for row in table.read(start, end).select(list(table.columns)).iter_rows(named=True)
    ]
    return [(name, row) for _, name, row in sorted(found, key=lambda event: event[:2])]


def opened(name: str, folder: Path) -> Ingestor:
    """The project with its live windows on Redis under this name."""
    project = replace(load_project(Profile.from_environment({}).project), name=name)
    lake = Lake(str(folder / "lake"), {})
    for table in project.tables.values():
        if not table.partitioned and not lake.exists(f"raw/{table.name}"):
            lake.replace(f"raw/{table.name}", table.read(_ORIGIN_OF_TIME, NOW), None)
    live = followed(project, RedisTiles(URL, name), lambda: START)
    spans = dict.fromkeys(live.views, (BEGINNING, micros(START)))  # as if all days before had been followed
    Following(live.tiles, START).finish(spans)
    return Ingestor(project, live, OnlineStore(folder / "online.db", name), lake)


def consumer(name: str, folder: Path, batch: int) -> Consumer:
    """A consumer as the command makes it."""
    return Consumer(opened(name, folder), EventStream(URL, name), lambda: NOW, name=uuid.uuid4().hex, batch=batch)


def send(stream: EventStream, some: list[Event]) -> None:
    """Onto the stream, in order."""
    for table, row in some:
        stream.send(table, [json.dumps(row, default=datetime.isoformat).encode()])


@contextmanager
def place() -> Iterator[tuple[str, Path]]:
    """A name under which Redis holds nothing, and a folder; both are empty again afterwards."""
    name = f"bench{uuid.uuid4().hex[:12]}"
    try:
        with tempfile.TemporaryDirectory(prefix="ml_platform_bench_") as folder:
            yield name, Path(folder)
    finally:
        with redis.Redis.from_url(URL) as client:
            for kind in ("live", "events"):
                for key in client.scan_iter(f"{kind}:{name}*", count=10_000):
                    client.delete(key)


def throughput(quick: bool, echo: Callable[[str], object]) -> None:
    """Seconds until the stream is empty, in a store filled with the days before; medians of interleaved runs."""
    echo(f"events a second by one consumer process (bar: at least {EVENTS_A_SECOND:,})")
    with place() as (name, folder):
        one = consumer(name, folder, 1000)
        project = one.ingestor.project
        begins = START + FILLED_WITH
        filled = events(project, begins - timedelta(days=1) if quick else START, begins)
        following = events(project, begins, begins + timedelta(days=30))
        many, rounds = (500, 1) if quick else (2_500, 5)
        _drain(one, filled)
        settle()
        runs: dict[int, list[tuple[float, float, int]]] = {batch: [] for batch in BATCHES}
        left = iter(range(0, len(following), many))
        for _ in range(rounds):
            for batch in BATCHES:
                one.batch, start = batch, next(left)
                runs[batch].append(_drain(one, following[start : start + many]))
        echo(f"  {len(filled):,} events before; then {rounds} times {many:,} a line, medians")
        for batch, some in runs.items():
            seconds, cpu = (median(run[which] for run in some) for which in (0, 1))
            echo(
                f"  batches of {batch:5,}: {many / seconds:8,.0f} events/s (best {many / min(some)[0]:,.0f}), "
                f"{cpu / many * 1e6:4.0f} us of the consumer's CPU an event; {sum(run[2] for run in some)} set aside"
            )


def _drain(one: Consumer, some: list[Event]) -> tuple[float, float, int]:
    """Seconds by the wall and of this process's CPU, and how many events were set aside."""
    send(one.stream, some)
    before, started, worked, left = one.counts.aside, perf_counter(), process_time(), len(some)
    while left:
        left -= one.step()
    return perf_counter() - started, process_time() - worked, one.counts.aside - before


def latency(quick: bool, echo: Callable[[str], object]) -> None:
    """From sending one event until a read of all the views it stands in shows it."""
    echo(f"milliseconds from an event's sending until a reader has its value (bar: p99 under {P99_MS})")
    with place() as (name, folder):
        one = consumer(name, folder, 1000)
        project = one.ingestor.project
        begins = START + FILLED_WITH
        _drain(one, events(project, begins - timedelta(days=1) if quick else START, begins))
        following = events(project, begins, begins + timedelta(days=30))
        probes = [row for table, row in following if table == _PROBE and row["arr_delay"] is not None]
        command = [sys.executable, "-m", "ml_platform.bench.features_stream", name, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()  # it reads the stream now
            try:
                for beside in (0, _BESIDE_A_SECOND):
                    count = 30 if quick else 500
                    with _others(EventStream(URL, name), following, beside):
                        waited = [_seen_after(one.ingestor.live, one.stream, project, row) for row in probes[:count]]
                    probes = probes[count:]
                    p50, p99, most = np.percentile(np.array(waited) * 1000, [50, 99, 100])
                    echo(
                        f"  {beside:4} other events a second: p50 {p50:5.1f}, p99 {p99:5.1f}, "
                        f"most {most:5.1f} ({count} events, one at a time)"
                    )
            finally:
                child.terminate()


def _seen_after(live: LiveViews, stream: EventStream, project: Project, row: dict[str, Any]) -> float:
    """Seconds; the row gets an aircraft of its own, whose only event it is."""
    own = {**row, "flight_id": uuid.uuid4().hex, "tailnum": uuid.uuid4().hex[:8]}
    asked: list[tuple[str, tuple[Any, ...]]] = [
        (name, tuple(own[entity] for entity in view.entity_names))
        for name, view in project.views.items()
        if view.is_live and view.source == _PROBE
    ]
    shows = next(n for n, (view, _) in enumerate(asked) if view == "previous_leg")
    sent = perf_counter()
    send(stream, [(_PROBE, own)])
    while live.values(asked, own[KNOWN_AT])[shows]["arr_delay_count_1d"] != 1:
        sleep(0.0005)
    return perf_counter() - sent


@contextmanager
def _others(stream: EventStream, some: list[Event], a_second: int) -> Iterator[None]:
    """Meanwhile other events arrive, in handfuls."""
    ended = threading.Event()
    left = iter(some)

    def keep_sending() -> None:
        while not ended.wait(0.02):
            send(stream, [event for _, event in zip(range(a_second // 50), left, strict=False)])

    sender = threading.Thread(target=keep_sending)
    if a_second:
        sender.start()
    try:
        yield
    finally:
        ended.set()
        if a_second:
            sender.join()


def measure(quick: bool = False, echo: Callable[[str], object] = click.echo) -> None:
    """Both figures. ``quick``: small, to see that it works, not to quote."""
    with redis.Redis.from_url(URL) as client:
        server = client.info("server")["redis_version"]
    echo(
        f"{machine(['polars', 'redis', 'hiredis', 'msgspec'])}, Redis {server} on the same machine; load of the last "
        f"minute {os.getloadavg()[0]:.1f}"
    )
    throughput(quick, echo)
    latency(quick, echo)


def main() -> None:
    """The section, or the consumer process of ``latency`` (given name and folder)."""
    if len(sys.argv) < 3:
        measure("--quick" in sys.argv)
        return
    one = consumer(sys.argv[1], Path(sys.argv[2]), 500)
    settle()
    click.echo("reads")
    one.run(threading.Event(), click.echo)


if __name__ == "__main__":
    main()
