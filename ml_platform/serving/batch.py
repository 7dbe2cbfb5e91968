"""Tomorrow's rows, scored at midnight by the champion on what was known then."""

from collections.abc import Iterable
from datetime import date, timedelta

import polars as pl

from ml_platform.features.refresh import read_for_recall
from ml_platform.features.windows import AS_OF
from ml_platform.serving.answers import grid_moment
from ml_platform.serving.champion import Champion
from ml_platform.spec import ASKED_AT, HAPPENS_AT, KNOWN_AT, Project, Task
from ml_platform.spec.calendar import day_start
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.training.training_set import join_features, question_rows

_TICK = timedelta(microseconds=1)


def tomorrows_rows(
    task: Task, spine: pl.LazyFrame, day: date, timezone: str, fields: Iterable[str] = ()
) -> pl.DataFrame:
    """Every row of the raw table known when ``day`` ends that happens on the day after it.

    They are asked at the last moment before midnight; ``as_of`` is that, or the last grid step.
    """
    midnight = day_start(day + timedelta(days=1), timezone)
    tomorrow = pl.col(task.happens_at).is_between(midnight, day_start(day + timedelta(days=2), timezone), closed="left")
    known = spine.filter(pl.col(KNOWN_AT) <= midnight, tomorrow).collect()
    asked_at = midnight - _TICK
    moments = {ASKED_AT: asked_at, AS_OF: grid_moment(asked_at, task.grid)}
    return question_rows(task, known, fields).with_columns(
        pl.lit(moment, pl.Datetime("us", "UTC")).alias(name) for name, moment in moments.items()
    )


def score_tomorrow(champion: Champion, project: Project, task: Task, lake: Lake, day: date) -> pl.DataFrame:
    """The probabilities of the day after ``day``.

    Columns: the task's key, ``happens_at``, ``as_of``, probability, model, model_version, ``known_date`` (``day``);
    ordered by ``happens_at`` and key.
    """
    computed = champion.computed
    fields = computed.fields if computed else {}
    rows = tomorrows_rows(task, lake.scan(f"raw/{task.spine}", last=day), day, project.timezone, fields)
    views = [lookup.view for lookup in champion.lookups]
    midnight = day_start(day + timedelta(days=1), project.timezone)
    # Of the midnight itself nothing counts: it belongs to the next day, which is not closed yet.
    frames = read_for_recall(views, project, lake, midnight - task.grid - _TICK, midnight - _TICK, task.grid)
    joined = join_features(rows, frames, views)
    joined = joined.hstack(computed.of_frame(joined)) if computed else joined
    answers = joined.select(task.key, HAPPENS_AT, AS_OF).with_columns(
        pl.Series("probability", champion.model.predict(joined), dtype=pl.Float64),
        pl.lit(champion.name).alias("model"),
        pl.lit(champion.version).alias("model_version"),
        pl.lit(day).alias(PARTITION),
    )
    return answers.sort(HAPPENS_AT, task.key)
