"""Tomorrow's rows, scored at midnight by the champion on what was known then."""

from collections.abc import Mapping
from datetime import date, timedelta

import polars as pl

from ml_platform.serving.answers import grid_moment
from ml_platform.serving.champion import Champion
from ml_platform.spec import KNOWN_AT, FeatureView, Task
from ml_platform.spec.calendar import day_start
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.training.training_set import AS_OF, HAPPENS_AT, join_features, question_rows

# Most entities changed within a week. Reading every day of every view instead takes three times as long after four
# months, and grows.
_RECENT = timedelta(days=7)


def tomorrows_rows(task: Task, spine: pl.LazyFrame, day: date, timezone: str) -> pl.DataFrame:
    """Every row of the raw table known when ``day`` ends that happens on the day after it.

    Feature rows of the midnight itself belong to the next day, which is not closed yet, so ``as_of`` is the grid step
    before.
    """
    midnight = day_start(day + timedelta(days=1), timezone)
    tomorrow = pl.col(task.happens_at).is_between(midnight, day_start(day + timedelta(days=2), timezone), closed="left")
    known = spine.filter(pl.col(KNOWN_AT) <= midnight, tomorrow).collect()
    as_of = grid_moment(midnight - timedelta(microseconds=1), task.grid)
    return question_rows(task, known).with_columns(pl.lit(as_of, pl.Datetime("us", "UTC")).alias(AS_OF))


def read_newest(lake: Lake, view: FeatureView, rows: pl.DataFrame, day: date) -> pl.DataFrame:
    """The part of the view's change log that holds the newest values of these rows' entities when ``day`` ends.

    Days further back are read only for entities that did not change recently; an entity that comes and goes (a view
    with ``online_for``) is not looked for there.
    """
    names, table = list(view.entity_names), f"features/{view.name}"
    log = lake.scan(table, last=day)
    types = log.collect_schema()
    wanted = rows.select(pl.col(name).cast(types[name]) for name in names).drop_nulls().unique()
    first = day - max(_RECENT, view.online_for or _RECENT)
    recent = lake.scan(table, first=first, last=day).join(wanted.lazy(), on=names, how="semi").collect()
    missing = wanted.join(recent, on=names, how="anti")
    if missing.is_empty() or view.online_for is not None:
        return recent
    older = log.filter(pl.col(PARTITION) < first).join(missing.lazy(), on=names, how="semi").collect()
    return pl.concat([recent, older])


def scored(
    champion: Champion, task: Task, rows: pl.DataFrame, tables: Mapping[str, pl.DataFrame], day: date
) -> pl.DataFrame:
    """The rows' probabilities, from change logs by view name.

    Columns: the task's key, ``happens_at``, ``as_of``, probability, model, model_version, ``known_date`` (``day``);
    ordered by ``happens_at`` and key.
    """
    joined = join_features(rows, tables, [lookup.view for lookup in champion.lookups])
    answers = joined.select(task.key, HAPPENS_AT, AS_OF).with_columns(
        pl.Series("probability", champion.model.predict(joined), dtype=pl.Float64),
        pl.lit(champion.name).alias("model"),
        pl.lit(champion.version).alias("model_version"),
        pl.lit(day).alias(PARTITION),
    )
    return answers.sort(HAPPENS_AT, task.key)


def score_tomorrow(champion: Champion, task: Task, lake: Lake, day: date, timezone: str) -> pl.DataFrame:
    """Read, join and score the day after ``day``; columns as ``scored``."""
    rows = tomorrows_rows(task, lake.scan(f"raw/{task.spine}", last=day), day, timezone)
    tables = {lookup.view.name: read_newest(lake, lookup.view, rows, day) for lookup in champion.lookups}
    return scored(champion, task, rows, tables, day)
