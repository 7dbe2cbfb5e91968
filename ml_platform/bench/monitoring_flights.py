"""The features that a project's questions were answered with in its first year, day by day.

They are as of the moment of the question, by the platform's own functions.
"""

from datetime import timedelta

import numpy as np
import polars as pl

from ml_platform.bench.monitoring_days import Days
from ml_platform.bench.split import raw_frames
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.spec import HAPPENS_AT, Project
from ml_platform.spec.calendar import day_start
from ml_platform.spec.request_views import request_fields
from ml_platform.training.encoding import Encoding
from ml_platform.training.training_set import input_names, join_features, question_rows


def flights_days() -> Days:
    """A row for each question of the year since the features have enough history (ten seconds of processor time)."""
    return days_of(_asked(load_project(Profile.from_environment().project)))


def days_of(rows: pl.DataFrame) -> Days:
    """From a frame of numbers with their ``day``."""
    names = [name for name in rows.columns if name != "day"]
    first = rows["day"].sort().to_list()[0]
    place = (rows["day"] - first).dt.total_days().to_numpy()
    return Days(names, rows.select(names).fill_null(np.nan).to_numpy(), place, first)


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
