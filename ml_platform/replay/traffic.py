"""What the outside world does in an hour: it asks about rows, and it learns truths."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

from ml_platform.spec import ASKED_AT, KNOWN_AT, Task
from ml_platform.stores.prediction_log import Truth
from ml_platform.training.training_set import question_rows

Question = tuple[dict[str, str | int | float | None], datetime]


def questions(
    task: Task, spine: pl.DataFrame, start: datetime, end: datetime, fields: Sequence[str] = ()
) -> list[Question]:
    """(row, moment of asking) of everything known at ``start`` and asked in [start, end), in order.

    fields: what a row holds beside its entities.
    """
    asked = question_rows(task, spine.filter(pl.col(KNOWN_AT) <= start), fields).filter(
        pl.col(ASKED_AT).is_between(start, end, closed="left")
    )
    rows = asked.sort(ASKED_AT, task.key).select(*task.entities, *fields, ASKED_AT)
    names = rows.columns[:-1]
    return [(dict(zip(names, map(_sent, row), strict=False)), row[-1]) for row in rows.iter_rows()]


def _sent(value: Any) -> str | int | float | None:
    return value.isoformat() if isinstance(value, datetime) else value


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
