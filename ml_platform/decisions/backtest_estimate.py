"""What the platform would have estimated a retraining to gain: its own function, on what its log would have held."""

from datetime import datetime

import polars as pl

from ml_platform.decisions.backtest_history import ASKED_ON, History
from ml_platform.decisions.backtest_versions import Version
from ml_platform.decisions.estimate import REACH, estimate_gain
from ml_platform.spec import ASKED_AT, HAPPENS_AT, KNOWN_AT, ModelSpec, Verdict
from ml_platform.spec.calendar import day_of, days_between
from ml_platform.training.training_set import LABEL, LABEL_KNOWN_AT


def estimated(
    history: History, spec: ModelSpec, champion: Version, started: datetime, now: datetime, min_gain: float
) -> Verdict:
    """The estimate at ``now``. started: nothing was answered before."""
    rows = log_rows(history, champion.trained_until, started, now)
    return estimate_gain(rows, champion.answers.model, spec, now, history.timezone, min_gain=min_gain)


def log_rows(history: History, trained_until: datetime, started: datetime, now: datetime) -> pl.DataFrame:
    """As ``estimate.fresh_rows`` reads them from a prediction log: fresh to the champion, the truth as first told."""
    task = history.spec.task
    first = day_of(max(trained_until, now - REACH) - task.lead, history.timezone)
    asked = history.questions.filter(
        (pl.col(ASKED_ON) >= first)
        & (pl.col(ASKED_AT) >= started)
        & (pl.col(HAPPENS_AT) > trained_until)
        & (pl.col(HAPPENS_AT) < now)
    )
    days = days_between(first, day_of(now, history.timezone))
    told = pl.concat([history.no_labels, *(history.labels[day] for day in days if day in history.labels)])
    known = told.filter(pl.col(KNOWN_AT) <= now).sort(KNOWN_AT).unique("prediction_id", keep="first")
    truths = known.drop_nulls("value").rename({"value": LABEL, KNOWN_AT: LABEL_KNOWN_AT})
    named = asked.with_columns(pl.col(task.key).cast(pl.String).alias("prediction_id")).sort(ASKED_AT, "prediction_id")
    joined = named.join(truths, on="prediction_id", how="inner", maintain_order="left")
    return joined.select(HAPPENS_AT, LABEL, LABEL_KNOWN_AT, *history.inputs)
