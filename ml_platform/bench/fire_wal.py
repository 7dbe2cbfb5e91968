"""What a record of the prediction log costs, and how the memory of a worker grows."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import numpy as np

from ml_platform.bench.arms import resident
from ml_platform.bench.fire_world import FireWorld
from ml_platform.bench.serving_world import ENTITIES, MODEL, SERVICE
from ml_platform.serving.process import running
from ml_platform.spec import PlatformError
from ml_platform.stores.clock import Clock
from ml_platform.stores.prediction_log import Prediction, PredictionLog

_FEATURES = 30
_RECORDS, _ROUNDS = 20_000, 5
_MB = 2**20
_LOOK_SECONDS = 1.0
_WARM = 0.25  # of the time: caches fill, the allocator finds its size


@dataclass(frozen=True, kw_only=True)
class Wal:
    """A record's bytes, and microseconds of the writer's CPU by how many records are written at once."""

    bytes: float
    micros: dict[int, float]


def wal(records: int = _RECORDS) -> Wal:
    """A prediction of thirty features, written on and on; nothing but the log's own work is timed."""
    now = Clock.wall()
    names = tuple(f"spending__spending_{number}" for number in range(_FEATURES))
    chance = np.random.default_rng(1)
    made = [
        Prediction(
            prediction_id=f"q{number}",
            model=MODEL,
            model_version="1",
            probability=float(chance.random()),
            asked_at=now,
            as_of=now,
            answered_at=now,
            entities={"ask": f"q{number}", "user": number % ENTITIES},
            feature_names=names,
            features=chance.random(_FEATURES).tolist(),
        )
        for number in range(records)
    ]
    size, micros = 0.0, {}
    for batch in (1, 8, 64):
        batches = [made[start : start + batch] for start in range(0, records, batch)]
        some = []
        for _ in range(_ROUNDS):
            took, size = _write(batches, now)
            some.append(took / records * 1e6)
        micros[batch] = median(some)
    return Wal(bytes=size / records, micros=micros)


def _write(batches: Sequence[Sequence[Prediction]], now: datetime) -> tuple[float, float]:
    """Seconds of CPU and bytes."""
    with tempfile.TemporaryDirectory(prefix="ml_platform_wal_") as folder:
        log = PredictionLog(Path(folder))
        began = time.process_time()
        for batch in batches:
            log.append_predictions(SERVICE, now.date(), batch)
        took = time.process_time() - began
        log.close()
        return took, float(sum(path.stat().st_size for path in Path(folder).rglob("*.log")))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident MB of the worker at the beginning (warm) and the end, the slope between in MB a minute."""

    first: float
    last: float
    slope: float
    answered: int
    failed: int
    minutes: float


def memory(world: FireWorld, minutes: float, rate: float) -> Memory:
    """One worker under so many questions a second; looked at each second."""
    with running(world.profile, SERVICE) as service:
        pid = service.child.pid
        words = [str(each) for each in (service.port, minutes * 60, 16, rate, pid, ENTITIES)]
        command = [sys.executable, "-m", "ml_platform.bench.serving_load", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as generator:
            began, seen = time.monotonic(), []
            while generator.poll() is None:
                seen.append((time.monotonic() - began, resident(pid) / _MB))
                time.sleep(_LOOK_SECONDS)
            assert generator.stdout is not None
            said = generator.stdout.read()
        if generator.returncode:
            raise PlatformError(f"the load generator ended with {generator.returncode}")
    told = json.loads(said)
    warm = [(at, size) for at, size in seen if _WARM * minutes * 60 < at < minutes * 60]
    slope = float(np.polyfit([at / 60 for at, _ in warm], [size for _, size in warm], 1)[0])
    answered = round(told["rate"] * minutes * 60)
    return Memory(
        first=warm[0][1], last=warm[-1][1], slope=slope, answered=answered, failed=told["failed"], minutes=minutes
    )
