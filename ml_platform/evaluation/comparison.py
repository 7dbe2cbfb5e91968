"""Challenger, champion and baselines answer the same rows; the gate judges on those that are fresh to the champion."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from ml_platform.evaluation.baselines import Answer
from ml_platform.spec import HAPPENS_AT
from ml_platform.training.encoding import Floats
from ml_platform.training.model import Model
from ml_platform.training.training_set import LABEL

DAY, CHALLENGER, CHAMPION = "day", "challenger", "champion"


def score(
    holdout: pl.DataFrame,
    challenger: Model,
    champion: Model | None,
    timezone: str,
    baselines: Mapping[str, Answer] | None = None,
) -> pl.DataFrame:
    """``happens_at``, ``day`` (local), ``label``, and each one's probability; the champion's are null without one.

    Raises:
        ModelRefused: a model needs inputs that the rows lack.
    """
    rival = champion.predict(holdout) if champion else None
    beside = {name: answer(holdout) for name, answer in (baselines or {}).items()}
    return beside_each_other(holdout, challenger.predict(holdout), rival, timezone, beside)


def beside_each_other(
    holdout: pl.DataFrame,
    challenger: Floats,
    champion: Floats | None,
    timezone: str,
    baselines: Mapping[str, Floats],
) -> pl.DataFrame:
    """The same from the answers to the rows."""
    rival = pl.lit(None, pl.Float64).alias(CHAMPION) if champion is None else pl.Series(CHAMPION, champion)
    return holdout.select(
        HAPPENS_AT,
        pl.col(HAPPENS_AT).dt.convert_time_zone(timezone).dt.date().alias(DAY),
        LABEL,
        pl.Series(CHALLENGER, challenger),
        rival,
        *(pl.Series(name, answers) for name, answers in baselines.items()),
    )


def fresh(rows: pl.DataFrame, trained_until: datetime | None) -> pl.DataFrame:
    """The rows of events after the champion's last training row: it has seen none of them."""
    return rows if trained_until is None else rows.filter(pl.col(HAPPENS_AT) > trained_until)


def has_champion(scored: pl.DataFrame) -> bool:
    """Whether the rows were scored by a champion."""
    return scored[CHAMPION].null_count() == 0


def without_champion(scored: pl.DataFrame) -> pl.DataFrame:
    """The same rows as if there were no champion."""
    return scored.with_columns(pl.lit(None, pl.Float64).alias(CHAMPION))
