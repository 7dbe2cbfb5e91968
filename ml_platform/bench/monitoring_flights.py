"""The served features of a project's first year, day by day, and faults planted into a day's rows.

The features are those that a question was answered with: as of its moment, by the platform's own functions.
"""

import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from ml_platform.bench.monitoring_days import Days, Floats
from ml_platform.bench.split import raw_frames
from ml_platform.resources.projects import load_project
from ml_platform.spec import HAPPENS_AT, Project
from ml_platform.spec.calendar import day_start
from ml_platform.spec.request_views import request_fields
from ml_platform.training.encoding import Encoding
from ml_platform.training.training_set import input_names, join_features, question_rows

Fault = Callable[[Floats, Sequence[str], np.random.Generator], Floats]
PROJECT = "ml_platform.projects.flights"


def flights_days(cache: Path | None = None) -> Days:
    """A row for each question of the year since the features have enough history.

    cache: folder in which the rows are kept for the next time; None: one in the system's temporary folder.
    """
    folder = cache or Path(tempfile.gettempdir()) / "ml_platform_bench"
    project = load_project(PROJECT)
    path = folder / f"{project.name}-inputs.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        _asked(project).write_parquet(part)
        part.replace(path)
    rows = pl.read_parquet(path)
    names = [name for name in rows.columns if name != "day"]
    first = rows["day"].min()
    place = (rows["day"] - first).dt.total_days().to_numpy()  # type: ignore[operator]
    return Days(names, rows.select(names).fill_null(np.nan).to_numpy(), place, first)  # type: ignore[arg-type]


def _asked(project: Project) -> pl.DataFrame:
    """``day`` and the model's inputs as numbers, one row a question."""
    spec = next(spec for spec in project.models.values() if spec.estimator == "lightgbm")
    frames, views = raw_frames(project), project.views_of(spec)
    asked = question_rows(spec.task, frames[spec.task.spine], request_fields(views))
    since, last = day_start(project.ready_from, project.timezone), project.ends or project.replay_until
    until = day_start(last + timedelta(days=1), project.timezone)
    asked = asked.filter(pl.col(HAPPENS_AT).is_between(since, until, closed="left")).sort(HAPPENS_AT, spec.task.key)
    joined = join_features(asked, frames, views)
    encoding = Encoding.learn(spec, joined.select(input_names(spec.task, views)))
    day = joined[HAPPENS_AT].dt.convert_time_zone(project.timezone).dt.date().alias("day")
    return encoding.encoded(joined).with_columns(day)
