"""Tomorrow's rows, scored at midnight by the champion on what was known then."""

from collections.abc import Mapping
from datetime import date, timedelta

import polars as pl

from ml_platform.serving.answers import grid_moment
from ml_platform.serving.champion import Champion
from ml_platform.spec import KNOWN_AT, Task
from ml_platform.spec.calendar import day_start
from ml_platform.stores.delta import PARTITION
from ml_platform.training.training_set import AS_OF, HAPPENS_AT, join_features, question_rows


def score_tomorrow(
    champion: Champion,
    task: Task,
    spine: pl.LazyFrame,
    tables: Mapping[str, pl.DataFrame | pl.LazyFrame],
    day: date,
    timezone: str,
) -> pl.DataFrame:
    """Every row known when ``day`` ends that happens on the day after it, with its probability.

    spine: the raw table; tables: the champion's views as change logs. Their rows of the midnight itself belong to the
    next day, which is not closed yet, so the features are those of the grid step before.
    Columns: the task's key, ``happens_at``, ``as_of``, probability, model, model_version, ``known_date`` (``day``);
    ordered by ``happens_at`` and key.
    """
    midnight = day_start(day + timedelta(days=1), timezone)
    tomorrow = pl.col(task.happens_at).is_between(midnight, day_start(day + timedelta(days=2), timezone), closed="left")
    known = spine.filter(pl.col(KNOWN_AT) <= midnight, tomorrow).collect()
    as_of = grid_moment(midnight - timedelta(microseconds=1), task.grid)
    rows = question_rows(task, known).with_columns(pl.lit(as_of, pl.Datetime("us", "UTC")).alias(AS_OF))
    joined = join_features(rows, tables, [lookup.view for lookup in champion.lookups])
    scored = joined.select(task.key, HAPPENS_AT, AS_OF).with_columns(
        pl.Series("probability", champion.model.predict(joined), dtype=pl.Float64),
        pl.lit(champion.name).alias("model"),
        pl.lit(champion.version).alias("model_version"),
        pl.lit(day).alias(PARTITION),
    )
    return scored.sort(HAPPENS_AT, task.key)
