"""How good the answers were, by the day they were asked, as far as the truth is known."""

from datetime import date, timedelta

import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.spec import TooFewLabels

COHORT = "cohort"
FOLLOWED_FOR = timedelta(days=10)  # labels arrive within 33 hours on flights; a cohort is looked at again this long
COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    COHORT: pl.Date,
    "model_version": pl.String,
    "answered": pl.Int64,
    "resolved": pl.Int64,
    "labelled": pl.Int64,
    "maturity": pl.Float64,
    "loss_sum": pl.Float64,
    "log_loss": pl.Float64,
    "auc": pl.Float64,
    "late_share": pl.Float64,
}


def cohorts(predictions: pl.DataFrame, labels: pl.DataFrame, timezone: str) -> pl.DataFrame:
    """One row for each day of asking and model version: answers, arrived truths, losses.

    predictions: ``prediction_id``, ``asked_at``, ``model_version``, ``probability``.
    labels: ``prediction_id``, ``value`` (null: it is known that there is no truth, as for a cancelled flight),
        ``known_at``. Labels of other predictions are left out.

    What was asked or posted twice, also on different days, counts once: the first time, as in the prediction log.
    """
    day = pl.col("asked_at").dt.convert_time_zone(timezone).dt.date().alias(COHORT)
    first_known = labels.sort("known_at").unique("prediction_id", keep="first")
    truths = first_known.select("prediction_id", "value", pl.lit(True).alias("known"))
    asked_first = predictions.sort("asked_at").unique("prediction_id", keep="first", maintain_order=True)
    joined = asked_first.with_columns(day).join(truths, on="prediction_id", how="left", maintain_order="left")
    rows = [
        _cohort(asked_on, version, group)
        for (asked_on, version), group in joined.group_by([COHORT, "model_version"], maintain_order=True)
    ]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row").sort(COHORT, "model_version")


def _cohort(asked_on: object, version: object, group: pl.DataFrame) -> tuple[object, ...]:
    judged = group.filter(pl.col("value").is_not_null())
    resolved = int(group["known"].sum())
    truths, given = judged["value"].to_numpy(), judged["probability"].to_numpy()
    losses = metrics.row_losses(truths, given) if judged.height else np.array([])
    return (
        asked_on,
        version,
        group.height,
        resolved,
        judged.height,
        resolved / group.height,
        float(losses.sum()),
        float(losses.mean()) if judged.height else None,
        _auc_if_both_classes(truths, given),
        float(truths.mean()) if judged.height else None,
    )


def _auc_if_both_classes(truths: np.ndarray, given: np.ndarray) -> float | None:
    try:
        return metrics.auc(truths, given)
    except TooFewLabels:
        return None  # one class only: there is no order to judge


def newest(history: pl.DataFrame) -> pl.DataFrame:
    """Each cohort as it was last looked at. ``history``: all days of the performance table."""
    last = history.sort("known_date").unique([COHORT, "model_version"], keep="last")
    return last.sort(COHORT, "model_version")


def first_followed(day: date) -> date:
    """The oldest cohort that is looked at on this day."""
    return day - FOLLOWED_FOR
