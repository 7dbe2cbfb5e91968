"""Live windows and a stream on a real Redis: a small project, its rows as messages, a consumer that may be killed.

``python -m ml_platform_tests.stream_world URL FOLDER DEATH`` is such a consumer; see ``Dying``.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import redis

from ml_platform.features.live import LiveViews
from ml_platform.serving.consumer import Consumer
from ml_platform.serving.events import Ingestor
from ml_platform.spec import KNOWN_AT, FeatureView, Latest, Project, SourceTable
from ml_platform.spec import expectations as gxe
from ml_platform.stores.delta import Lake
from ml_platform.stores.event_stream import EventStream, Message
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.tiles import Change
from ml_platform.stores.tiles_redis import RedisTiles
from ml_platform_tests.services import ADDRESSES
from ml_platform_tests.test_windows import START, UTC_TIME, VIEW

DATABASE = 11
NOW = START + timedelta(days=2)
LIVE: FeatureView = replace(
    VIEW, key=("trip",), features=tuple(feature for feature in VIEW.features if not isinstance(feature, Latest))
)
CLAIM_AFTER = timedelta(milliseconds=200)
BATCH = 7


def project(name: str) -> Project:
    """One live view over trips, closed by ends and losses."""
    columns = {"trip": pl.Int64, "city": pl.String, "line": pl.Int64, "at": UTC_TIME, KNOWN_AT: UTC_TIME}
    declared = partial(SourceTable, read=lambda start, end: pl.DataFrame(), key=("trip",), known_at_source="s")
    day = date(2024, 3, 1)
    return Project(
        name=name,
        features="",
        timezone="UTC",
        starts=day,
        ready_from=day,
        serves_from=day,
        replay_until=day,
        tables={
            "trips": declared(
                name="trips",
                description="d",
                columns={**columns, "minutes": pl.Int64, "fare": pl.Float64, "note": pl.String},
                rules=(gxe.ExpectColumnValuesToBeBetween(column="minutes", min_value=-60, max_value=1_000),),
            ),
            **{
                table: declared(name=table, description="d", columns={"trip": pl.Int64, KNOWN_AT: UTC_TIME})
                for table in ("ends", "losses")
            },
        },
        views={LIVE.name: LIVE},
    )


def many_frames(count: int, seed: int = 1, *, corrected: int = 0) -> dict[str, pl.DataFrame]:
    """Trips of two days in few cities, and how some ended; ``corrected``: so many rows more that correct others."""
    draw = np.random.default_rng(seed)
    at = [START + timedelta(minutes=int(n)) for n in np.sort(draw.integers(0, 2700, count))]
    known = [moment + timedelta(minutes=int(n)) for moment, n in zip(at, draw.integers(-30, 120, count), strict=True)]
    trips = pl.DataFrame(
        {
            "trip": range(count),
            "city": draw.choice(["a", "b"], count),
            "line": draw.integers(1, 3, count),
            "at": at,
            KNOWN_AT: [max(moment, START) for moment in known],
            "minutes": draw.integers(-20, 90, count),
            "fare": draw.uniform(0, 100, count).round(2),
            "note": draw.choice(["x", "y", "z"], count),
        },
        schema_overrides={"at": UTC_TIME, KNOWN_AT: UTC_TIME},
    )
    again = trips.sample(corrected, seed=seed, with_replacement=True).with_columns(
        pl.col(KNOWN_AT) + pl.Series(draw.integers(1, 300, corrected)) * timedelta(minutes=1),
        pl.Series("city", draw.choice(["a", "b"], corrected)),
        pl.Series("minutes", draw.integers(-20, 90, corrected)),
    )
    closed = trips.sample(fraction=0.6, seed=seed).select("trip", pl.col("at") + timedelta(minutes=50))
    closed = closed.rename({"at": KNOWN_AT})
    return {
        "trips": pl.concat([trips, again]),
        "ends": closed,
        "losses": closed.head(20).with_columns(pl.col(KNOWN_AT).dt.offset_by("1h")),
    }


def as_json(frame: pl.DataFrame) -> list[bytes]:
    """One object a row."""
    return [json.dumps(row, default=datetime.isoformat).encode() for row in frame.iter_rows(named=True)]


def ingestor(url: str, name: str, folder: Path) -> Ingestor:
    """Everything that a consumer needs."""
    declared = project(name)
    live = LiveViews(declared.views.values(), RedisTiles(url, name))
    return Ingestor(declared, live, OnlineStore(folder / "online.db", name), Lake(str(folder / "lake"), {}))


def consumer(url: str, name: str, folder: Path, *, stream: EventStream | None = None) -> Consumer:
    """One of small batches that takes over soon what others left."""
    return Consumer(
        ingestor(url, name, folder),
        stream or EventStream(url, name),
        lambda: NOW,
        name=uuid.uuid4().hex,
        batch=BATCH,
        claim_after=CLAIM_AFTER,
    )


def drained(one: Consumer, within: float = 20) -> Consumer:
    """Lets the consumer work until nothing waits."""
    deadline = time.monotonic() + within
    while one.stream.waiting():
        one.step()
        assert time.monotonic() < deadline, f"{one.stream.waiting()} messages still wait"
    return one


@contextmanager
def empty_place() -> Iterator[tuple[str, str]]:
    """Address and a project of which Redis holds nothing; what it then holds is removed at the end."""
    host, port = ADDRESSES["redis"]
    name = f"test{uuid.uuid4().hex[:12]}"
    yield f"redis://{host}:{port}/{DATABASE}", name
    with redis.Redis(host, port, db=DATABASE) as client:
        left = [key for kind in ("live", "events") for key in client.scan_iter(f"{kind}:{name}*", count=10_000)]
        if left:
            client.delete(*left)


def write(url: str, name: str, seed: int) -> int:
    """Rows of its own and rows that others write, too, in an order of its own; returns the tiles written."""
    order, written = random.Random(seed), 0
    deliveries = []
    for table, frame in many_frames(600, corrected=200).items():
        own = frame.filter((pl.col("trip") % 3 == seed) | (pl.col("trip") % 5 == 0))
        shuffled = own.sample(fraction=1, shuffle=True, seed=seed)
        deliveries += [(table, part) for part in shuffled.iter_slices(order.choice([3, 20, 60]))]
    order.shuffle(deliveries)
    live = LiveViews([LIVE], RedisTiles(url, name))
    for table, rows in deliveries:
        written += live.apply(table, rows)
    return written


class Dying(EventStream):
    """A stream whose consumer kills itself in its third batch: applied, and not yet taken out of the stream."""

    left = 2

    def finish(self, applied: Sequence[Message], aside: Sequence[tuple[Message, str]]) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        super().finish(applied, aside)


class DyingTiles(RedisTiles):
    """Tiles whose writer kills itself in its fourth update, between facts and tiles or within a batch of several."""

    left = 3

    def update(self, changes: Sequence[Change]) -> int:
        if self.left == 0:
            super().update(changes[: len(changes) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return super().update(changes)


def main(url: str, name: str, folder: str, death: str) -> None:
    """Consume until killed, from within (``death`` is finish or update) or from without."""
    stream = Dying(url, name) if death == "finish" else EventStream(url, name)
    one = consumer(url, name, Path(folder), stream=stream)
    if death == "update":
        one.ingestor.live.tiles = DyingTiles(url, name)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    one.run(threading.Event(), lambda said: None)


@contextmanager
def child(url: str, name: str, folder: Path, death: str) -> Iterator["subprocess.Popen[str]"]:
    """Such a consumer in a process of its own, once it begins to read."""
    command = [sys.executable, "-m", "ml_platform_tests.stream_world", url, name, str(folder), death]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
