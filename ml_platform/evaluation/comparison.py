"""The challenger and the champion answer the same fresh rows."""

from datetime import datetime

import polars as pl

from ml_platform.evaluation.gate import judge
from ml_platform.evaluation.report import CHALLENGER, CHAMPION, DAY
from ml_platform.spec import HAPPENS_AT, ModelSpec, Verdict
from ml_platform.training.model import Model
from ml_platform.training.training_set import LABEL


def score(holdout: pl.DataFrame, challenger: Model, champion: Model | None, timezone: str) -> pl.DataFrame:
    """``happens_at``, ``day`` (local), ``label``, and each model's probability; null where there is no champion.

    Raises:
        ModelRefused: a model needs inputs that the rows lack.
    """
    rival = pl.Series(CHAMPION, champion.predict(holdout)) if champion else pl.lit(None, pl.Float64).alias(CHAMPION)
    return holdout.select(
        HAPPENS_AT,
        pl.col(HAPPENS_AT).dt.convert_time_zone(timezone).dt.date().alias(DAY),
        LABEL,
        pl.Series(CHALLENGER, challenger.predict(holdout)),
        rival,
    )


def fresh(scored: pl.DataFrame, trained_until: datetime | None) -> pl.DataFrame:
    """The rows of events after the champion's last training row: it has seen none of them."""
    return scored if trained_until is None else scored.filter(pl.col(HAPPENS_AT) > trained_until)


def compare(
    scored: pl.DataFrame, trained_until: datetime | None, spec: ModelSpec, *, first: bool
) -> tuple[pl.DataFrame, Verdict]:
    """The rows to show and the gate's verdict, judged on rows fresh to the champion (``first``: there is none).

    Where fresh rows are too few to judge, all rows are shown, without the champion, who has learned some of them.
    """
    rows = fresh(scored, trained_until)
    rival = None if first else rows[CHAMPION]
    verdict = judge(rows[CHALLENGER], rival, rows[LABEL], rows[DAY], spec.gate, spec.seed)
    if verdict.state == "unknown":
        return without_champion(scored), verdict
    return rows, verdict


def without_champion(scored: pl.DataFrame) -> pl.DataFrame:
    """The same rows as if there were no champion."""
    return scored.with_columns(pl.lit(None, pl.Float64).alias(CHAMPION))
