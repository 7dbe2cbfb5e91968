"""A small project with a real registry, online store and log, for the tests of serving."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from ml_platform.features.follow import followed
from ml_platform.features.live import LiveViews
from ml_platform.features.live_view import micros
from ml_platform.features.live_whole import BEGINNING, Following
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.spec import ModelSpec, Project
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.prediction_log import PredictionLog
from ml_platform.stores.tiles import SqliteTiles, TileStore
from ml_platform.stores.tracking import ModelVersion, Tracking
from ml_platform.training.lightgbm_trees import MODEL_FILE, fit_trees

NOON = datetime(2013, 4, 1, 16, 20, tzinfo=UTC)
ROW: dict[str, str | int | None] = {"trip": "t1", "city": "Rome", "line": 7}

FILES = {
    "tiny/__init__.py": """
        from datetime import date
        from ml_platform.spec import Project
        project = Project(name="tiny", features="tiny_features", timezone="America/New_York", starts=date(2013, 1, 1),
                          ready_from=date(2013, 1, 2), serves_from=date(2013, 4, 1), replay_until=date(2013, 4, 9))
        """,
    "tiny/tables/__init__.py": "",
    "tiny/tables/trips.py": """
        import polars as pl
        from ml_platform.spec import SourceTable
        trips = SourceTable(
            read=lambda first, last: pl.DataFrame(), key=("trip",), description="d", known_at_source="s",
            columns={"trip": pl.String, "city": pl.String, "line": pl.Int64, "load": pl.Float64,
                     "leaves": pl.Datetime("us", "UTC"), "known_at": pl.Datetime("us", "UTC")})
        """,
    "tiny/tables/arrivals.py": """
        import polars as pl
        from ml_platform.spec import SourceTable
        from ml_platform.spec import expectations as gxe
        arrivals = SourceTable(
            read=lambda first, last: pl.DataFrame(), key=("trip",), description="d", known_at_source="s",
            rules=(gxe.ExpectColumnValuesToBeBetween(column="delay", min_value=-100, max_value=1000, action="stop"),),
            columns={"trip": pl.String, "line": pl.Int64, "delay": pl.Float64, "known_at": pl.Datetime("us", "UTC")})
        """,
    "tiny/models/__init__.py": "",
    "tiny/models/late.py": """
        from datetime import timedelta
        import polars as pl
        from ml_platform.spec import Label, ModelSpec, Task
        task = Task(
            name="late", spine="trips", key="trip", happens_at="leaves", lead=timedelta(hours=2),
            grid=timedelta(hours=1), entities=("trip", "city", "line"), categorical=("city",), description="d",
            label=Label(table="arrivals", on=("trip",), value=pl.col("delay") > 15, description="d"))
        late = ModelSpec(task=task, views=("city_load", "line_past"), estimator="lightgbm", description="d",
                         parameters={"num_leaves": 4, "min_data_in_leaf": 5})
        """,
    "tiny/models/other.py": """
        from dataclasses import replace
        from tiny.models import late
        other = replace(late.late, name="")
        """,
    "tiny/services/__init__.py": "",
    "tiny/services/idle.py": """
        from ml_platform.spec import Service
        idle = Service(model="other", description="Has no champion at first.")
        """,
    "tiny/services/desk.py": """
        from ml_platform.spec import Service
        desk = Service(model="late", description="Late or not.", max_rows=20)
        """,
    "tiny_features/__init__.py": "",
    "tiny_features/views/__init__.py": "",
    "tiny_features/views/city_load.py": """
        from ml_platform.spec import Entity, FeatureView, Latest
        city_load = FeatureView(source="trips", entities=(Entity(name="city"),), description="d",
                                features=(Latest("load"), Latest("line", "int64", name="newest")))
        """,
    "tiny_features/views/line_past.py": """
        from datetime import timedelta
        from ml_platform.spec import Entity, FeatureView, Window
        line_past = FeatureView(source="arrivals", entities=(Entity(name="line", dtype="int64"),), description="d",
                                features=(Window("delay", "mean", over=(timedelta(days=1),)),))
        """,
}


# Child processes find this one first: whoever loads Dagster while serving fails.
BLOCK = "blocked/dagster/__init__.py"
FILES[BLOCK] = 'raise RuntimeError("the serving process loads Dagster")'


def _write_package(folder: Path, changed: Mapping[str, str]) -> None:
    for name, text in {**FILES, **changed}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        path.write_text("\n".join(line[indent:] for line in lines) + "\n")


@dataclass(frozen=True)
class World:
    """A state folder of the tiny project."""

    profile: Profile

    @property
    def project(self) -> Project:
        return load_project(self.profile.project)

    @property
    def spec(self) -> ModelSpec:
        return self.project.models["late"]

    @property
    def tracking(self) -> Tracking:
        return Tracking(self.profile.mlflow_uri, self.profile.mlflow_artifacts)

    @property
    def online(self) -> OnlineStore:
        return OnlineStore(self.profile.online_path, self.project.name)

    @property
    def live(self) -> LiveViews:
        return followed(self.project, SqliteTiles(self.profile.live_path), lambda: NOON)

    @property
    def log(self) -> PredictionLog:
        return PredictionLog(self.profile.log_path)

    def trained(self, folder: Path, *, upside_down: bool = False) -> Path:
        """A small model whose probability grows (or falls) with the city's load."""
        draw = np.random.default_rng(1)
        load = draw.uniform(0, 1, 400)
        rows = pl.DataFrame(
            {
                "city": draw.choice(["Rome", "Oslo"], 400),
                "city_load__load": load,
                "city_load__newest": draw.integers(0, 9, 400),
                "line_past__delay_mean_1d": draw.normal(0, 1, 400),
                "label": ((load > 0.5) != upside_down).astype(int),
            }
        )
        return fit_trees(self.spec, rows, 20, threads=1).save(folder)

    def register(self, folder: Path, model: str = "late") -> ModelVersion:
        return self.tracking.register(
            model, folder, estimator="lightgbm", run_name="test", parameters={}, metrics={}, tags={}
        )

    def register_broken(self, folder: Path) -> ModelVersion:
        """A version whose files do not load."""
        self.trained(folder)
        (folder / MODEL_FILE).write_text("tree\nnonsense")
        return self.register(folder)

    def publish(self, view: str, rows: list[dict[str, object]]) -> None:
        frame = pl.DataFrame(rows).with_columns(pl.lit(NOON.replace(minute=0)).alias("as_of"))
        self.online.publish(self.project.views[view], frame, NOON)


@lru_cache
def _empty_registry() -> Path:
    """An MLflow database without content; making one takes seconds, so it is made once."""
    folder = Path(tempfile.mkdtemp(prefix="registry-"))
    atexit.register(shutil.rmtree, folder)
    Tracking(f"sqlite:///{folder / 'mlflow.db'}", folder.as_uri()).challenger("none")
    return folder / "mlflow.db"


@contextmanager
def world(folder: Path, changed: Mapping[str, str] | None = None) -> Iterator[World]:
    """The tiny project importable here and in child processes, with a state folder of its own.

    changed: files that stand beside, or in place of, its own.
    """
    _write_package(folder, changed or {})
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder / "blocked"), str(folder), before]))
    sys.path.insert(0, str(folder))
    load_project.cache_clear()
    made = World(Profile.at(folder / "home", project="tiny"))
    database = Path(made.profile.mlflow_uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True)
    shutil.copy(_empty_registry(), database)
    try:
        yield made
    finally:
        load_project.cache_clear()
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] in ("tiny", "tiny_features")]:
            del sys.modules[name]
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def said_whole(project: Project, tiles: TileStore) -> None:
    """As if the project's days had been followed from the first one on, and there were no event in them."""
    begins = datetime(2013, 1, 1, tzinfo=UTC)
    spans = {name: (BEGINNING, micros(begins)) for name, view in project.views.items() if view.is_live}
    Following(tiles, begins).finish(spans)


def standard(folder: Path, changed: Mapping[str, str] | None = None) -> Iterator[World]:
    """With two published cities and a champion, version 1."""
    with world(folder, changed) as made:
        made.publish(
            "city_load", [{"city": "Rome", "load": 0.9, "newest": 3}, {"city": "Oslo", "load": 0.1, "newest": 4}]
        )
        past = {"trip": "before", "line": 7, "delay": 0.3, "known_at": NOON - timedelta(hours=1)}
        said_whole(made.project, made.live.tiles)
        made.live.apply("arrivals", pl.DataFrame([past]))
        made.tracking.promote("late", made.register(made.trained(folder / "v1")).version)
        yield made


__all__ = ["NOON", "ROW", "World", "said_whole", "standard", "world"]
