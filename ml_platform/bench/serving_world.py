"""What the benchmark of serving serves: a made-up project with thirty stored features, its model, and a Redis."""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.spec import FeatureView, PlatformError
from ml_platform.spec.features import feature_name
from ml_platform.stores.online import Online
from ml_platform.stores.online_redis import RedisOnlineStore
from ml_platform.stores.redis_wire import RedisWire, packed
from ml_platform.stores.tracking import Tracking
from ml_platform.training.model import Model

PROJECT, SERVICE, MODEL = "bench_serving", "asks", "clicks"
ENTITIES, TREES, SEED = 4000, 300, 20260101
AS_OF = datetime(2026, 1, 1, 12, tzinfo=UTC)
SERVER_CORE, OTHER_CORE = 0, 1  # load generator and Redis share the other
KEPT = timedelta(days=36_500)  # every answer looks whether a value is too old; none is
FILES: Mapping[str, str] = {
    f"{PROJECT}/__init__.py": """
from datetime import date
from ml_platform.spec import Project
project = Project(name="bench_serving", features="bench_serving_features", timezone="UTC", starts=date(2020, 1, 1),
                  ready_from=date(2020, 1, 2), serves_from=date(2020, 4, 1), replay_until=date(2020, 4, 9))
""",
    f"{PROJECT}/tables/__init__.py": "",
    f"{PROJECT}/tables/events.py": """
import polars as pl
from ml_platform.spec import SourceTable
columns = {"ask": pl.String, "user": pl.Int64, "happens": pl.Datetime("us", "UTC"),
           "known_at": pl.Datetime("us", "UTC"), "clicked": pl.Int64}
for view in ("spending", "visits"):
    columns |= {f"{view}_{n}": pl.Float64 if n < 12 else pl.Int64 for n in range(15)}
events = SourceTable(read=lambda first, last: pl.DataFrame(), key=("ask",), description="d", known_at_source="s",
                     columns=columns)
del view
""",
    f"{PROJECT}/models/__init__.py": "",
    f"{PROJECT}/models/clicks.py": """
from datetime import timedelta
import polars as pl
from ml_platform.spec import Label, ModelSpec, Task
clicks = ModelSpec(
    task=Task(name="clicks", spine="events", key="ask", happens_at="happens", lead=timedelta(0),
              entities=("ask", "user"), categorical=(), description="d",
              label=Label(table="events", on=("ask",), value=pl.col("clicked") > 0, description="d")),
    views=("spending", "visits"), estimator="lightgbm", description="d",
    parameters={"num_leaves": 31, "min_data_in_leaf": 20, "learning_rate": 0.05})
""",
    f"{PROJECT}/services/__init__.py": "",
    f"{PROJECT}/services/asks.py": """
from ml_platform.spec import Service
asks = Service(model="clicks", description="Is it clicked?")
""",
    f"{PROJECT}_features/__init__.py": "",
    f"{PROJECT}_features/views/__init__.py": "",
    **{
        f"{PROJECT}_features/views/{name}.py": f"""
from datetime import timedelta
from ml_platform.spec import Entity, FeatureView, Latest
{name} = FeatureView(
    source="events", entities=(Entity(name="user", dtype="int64"),), description="d",
    online_for=timedelta(days=36500), fresh_within=timedelta(days=36500),
    features=tuple(Latest(f"{name}_{{n}}", "float64" if n < 12 else "int64") for n in range(15)))
"""
        for name in ("spending", "visits")
    },
}


@dataclass(frozen=True, kw_only=True)
class World:
    """A state folder whose champion is trained and whose features lie in Redis.

    model_file: the booster's own text. expected: the probability of each user by ``Booster.predict``.
    """

    folder: Path
    profile: Profile
    redis_port: int
    model_file: Path
    expected: tuple[float, ...]

    def environment(self) -> dict[str, str]:
        """For the processes that serve it; they answer with the production profile."""
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.folder), *sys.path])),
            "ML_PLATFORM_LAKE": self.profile.lake,
            "ML_PLATFORM_MLFLOW_URI": self.profile.mlflow_uri,
            "ML_PLATFORM_MLFLOW_ARTIFACTS": self.profile.mlflow_artifacts,
            "ML_PLATFORM_POSTGRES_URL": "postgresql+psycopg2://nobody@127.0.0.1/serving_needs_none",
            "ML_PLATFORM_REDIS_URL": str(self.profile.redis_url),
        }


def write_project(folder: Path, more: Mapping[str, str] = {}) -> None:  # nobody changes it
    """The project's files in a folder; ``more`` beside them."""
    for name, text in {**FILES, **more}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@contextmanager
def world(folder: Path, core: int, more: Mapping[str, str] = {}) -> Iterator[World]:  # as above
    """Made in a folder, with a Redis of its own on a core; ``more``: files of the project's beside its own.

    Raises:
        PlatformError: there is no redis-server to start.
    """
    write_project(folder, more)
    sys.path.insert(0, str(folder))
    try:
        with _redis(folder, core) as port:
            at = Profile.at(folder / "home", project=PROJECT)
            profile = replace(at, name="production", redis_url=f"redis://127.0.0.1:{port}/0")
            yield _made(folder, profile, port)
    finally:
        sys.path.remove(str(folder))


def _made(folder: Path, profile: Profile, port: int) -> World:
    from ml_platform.training.lightgbm_trees import MODEL_FILE

    inputs = published(RedisOnlineStore(str(profile.redis_url), PROJECT))
    version, model, saved = registered(profile, inputs, folder / "model", trees=TREES)
    tracking_of(profile).promote(MODEL, version)
    return World(
        folder=folder,
        profile=profile,
        redis_port=port,
        model_file=saved / MODEL_FILE,
        expected=tuple(model.predict(inputs).tolist()),
    )


def tracking_of(profile: Profile) -> Tracking:
    """The registry, in a folder that exists."""
    profile.home.mkdir(parents=True, exist_ok=True)
    (profile.home / "mlflow").mkdir(exist_ok=True)
    return Tracking(profile.mlflow_uri, profile.mlflow_artifacts)


def published(store: Online) -> pl.DataFrame:
    """Publish a row a user; the models' inputs of all users, as ``served_inputs``."""
    for view, table in _tables():
        store.publish(view, table, AS_OF)
    return served_inputs()


def _tables() -> list[tuple[FeatureView, pl.DataFrame]]:
    project = load_project(PROJECT)
    views = [project.views[name] for name in ("spending", "visits")]
    return [(view, table_of(view, SEED + number)) for number, view in enumerate(views)]


def served_inputs() -> pl.DataFrame:
    """The models' inputs, a row a user in the order of the users."""
    return pl.concat(
        [
            table.select(pl.col(name).alias(feature_name(view.name, name)) for name in view.schema())
            for view, table in _tables()
        ],
        how="horizontal",
    )


def registered(
    profile: Profile, inputs: pl.DataFrame, folder: Path, *, trees: int, seed: int = SEED
) -> tuple[int, Model, Path]:
    """A version whose truths have noise of their own: its number, the model, and its files."""
    from ml_platform.training.lightgbm_trees import fit_trees

    values = np.nan_to_num(inputs.to_numpy().astype(np.float64))
    noise = np.random.default_rng(seed).normal(0, 0.3, ENTITIES)
    labels = (values[:, 0] * values[:, 1] + values[:, 17] - values[:, 29] / 2000 + noise > 0.3).astype(np.int64)
    # Five times the users, or so many trees would find nothing left to learn.
    rows = pl.concat([inputs.with_columns(label=pl.Series(labels))] * 5)
    model = fit_trees(load_project(PROJECT).models[MODEL], rows, trees, threads=2)
    saved = model.save(folder)
    none: dict[str, Any] = {"parameters": {}, "metrics": {}, "tags": {}}
    version = tracking_of(profile).register(MODEL, saved, estimator="lightgbm", run_name="bench", **none)
    return version.version, model, saved


def table_of(view: FeatureView, seed: int) -> pl.DataFrame:
    """A row a user; every fiftieth value is null."""
    chance = random.Random(seed)
    columns: dict[str, list[Any]] = {"user": list(range(ENTITIES))}
    for name, kind in view.schema().items():
        draw = chance.random if kind == "float64" else lambda: chance.randrange(2000)
        columns[name] = [None if chance.random() < 0.02 else draw() for _ in range(ENTITIES)]
    moments = [AS_OF - timedelta(seconds=chance.randrange(7200)) for _ in range(ENTITIES)]
    return pl.DataFrame(columns).with_columns(pl.Series("as_of", moments, dtype=pl.Datetime("us", "UTC")))


@contextmanager
def _redis(folder: Path, core: int) -> Iterator[int]:
    binary = shutil.which("redis-server")
    if binary is None:
        raise PlatformError("the benchmark starts a Redis of its own, and there is no redis-server; install Redis")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        try:
            pin(process.pid, core)
            _wait(port)
            yield port
        finally:
            process.terminate()


def _wait(port: int) -> None:
    wire = RedisWire(f"redis://127.0.0.1:{port}/0", timedelta(seconds=5))
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                break
        except OSError:
            time.sleep(0.05)
    wire.ask(packed("PING"), 1)
    wire.close()


def pin(pid: int, core: int) -> None:
    """Let all threads of a process run on one core alone; nothing where the system knows no such thing."""
    tasks = Path(f"/proc/{pid}/task")
    if hasattr(os, "sched_setaffinity") and tasks.exists():
        for task in tasks.iterdir():
            os.sched_setaffinity(int(task.name), {core})
