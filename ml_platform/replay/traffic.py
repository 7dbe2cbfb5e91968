"""What the outside world does in an hour: it asks about rows, and it learns truths."""

from datetime import datetime

import polars as pl

from ml_platform.spec import KNOWN_AT, Task
from ml_platform.stores.prediction_log import Truth
from ml_platform.training.training_set import ASKED_AT, question_rows

Question = tuple[dict[str, str | int | None], datetime]


def questions(task: Task, spine: pl.DataFrame, start: datetime, end: datetime) -> list[Question]:
    """(row of entities, moment of asking) of everything known at ``start`` and asked in [start, end), in order."""
    asked = question_rows(task, spine.filter(pl.col(KNOWN_AT) <= start)).filter(
        pl.col(ASKED_AT).is_between(start, end, closed="left")
    )
    rows = asked.sort(ASKED_AT, task.key).select(*task.entities, ASKED_AT)
    return [({k: v for k, v in row.items() if k != ASKED_AT}, row[ASKED_AT]) for row in rows.iter_rows(named=True)]


def truths(
    task: Task, spine: pl.DataFrame, outcomes: pl.DataFrame, after: datetime, until: datetime, asked_from: datetime
) -> list[Truth]:
    """What became known in (after, until] about rows that were asked from ``asked_from`` on; null: no truth exists."""
    known = outcomes.filter(pl.col(KNOWN_AT).is_between(after, until, closed="right"))
    asked = question_rows(task, spine).filter(pl.col(ASKED_AT) >= asked_from)
    judged = known.with_columns(task.label.value.cast(pl.Int64).alias("_value"))
    on = list(task.label.on)
    named = judged.select(*on, KNOWN_AT, "_value").join(
        asked.select(*dict.fromkeys([task.key, *on])), on=on, how="inner"
    )
    rows = named.sort(KNOWN_AT, task.key).select(task.key, "_value", KNOWN_AT)
    return [Truth(prediction_id=key, value=value, known_at=at) for key, value, at in rows.iter_rows()]
