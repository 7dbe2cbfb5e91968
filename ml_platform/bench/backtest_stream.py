"""A stream of our own making for backtests: seasons that change nothing, a bad week that passes, a change that lasts.

Every question has eight inputs. Two of them follow the seasons, and so does the share of ones, by the same rule all
year: what a model learned stays right. In the bad week labels are half noise, whoever answers. From ``CHANGES_ON`` on
four of the eight weights have the opposite sign, for good.
"""

from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from ml_platform.decisions.backtest_history import ASKED_ON, ROW, History
from ml_platform.features.windows import AS_OF
from ml_platform.spec import ASKED_AT, HAPPENS_AT, KNOWN_AT, Label, ModelSpec, Task
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.training.training_set import LABEL, LABEL_KNOWN_AT

SEED = 20260
BEGINS, SERVES_FROM, ENDS = date(2021, 1, 4), date(2021, 4, 5), date(2021, 12, 31)
BAD_WEEK = date(2021, 5, 24)
CHANGES_ON = date(2021, 8, 16)
A_DAY = 400
_INPUTS = 8
_WEIGHTS = np.array([1.2, -0.9, 0.7, 0.6, -0.6, 0.5, 0.4, -0.3])
_TURNED = np.array([1, 1, -1, -1, 1, -1, 1, -1])
_ZONE = "UTC"
_COLUMNS = tuple(f"stream__x{number}" for number in range(_INPUTS))

TASK = Task(
    name="stream",
    description="A made-up question, asked an hour before.",
    spine="questions",
    key="question",
    happens_at=HAPPENS_AT,
    lead=timedelta(hours=1),
    entities=("question",),
    categorical=(),
    label=Label(table="answers", on=("question",), value=pl.col("one"), description="made up"),
)
SPEC = ModelSpec(
    name="stream",
    task=TASK,
    views=("stream",),
    estimator="lightgbm",
    description="Small trees on a made-up stream.",
    parameters={"num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 50},
    train_window=timedelta(days=60),
)


def stream(seed: int = SEED, *, changes_on: date | None = CHANGES_ON) -> History:
    """The whole stream; the truth of a question is known three hours to a day and a half after it.

    changes_on: None for a stream that never changes.
    """
    days = [_day(day, seed, changes_on) for day in days_between(BEGINS, ENDS)]
    rows = pl.concat(days).sort(HAPPENS_AT, TASK.key)
    asked = pl.col(HAPPENS_AT) - TASK.lead
    questions = rows.select(
        TASK.key, asked.alias(ASKED_AT), HAPPENS_AT, asked.alias(AS_OF), *_COLUMNS, asked.dt.date().alias(ASKED_ON)
    )
    return History(
        spec=SPEC,
        timezone=_ZONE,
        questions=questions.with_row_index(ROW),
        outcomes=rows.select(TASK.key, "one", KNOWN_AT),
        columns=(TASK.key, HAPPENS_AT, AS_OF, *_COLUMNS, LABEL, LABEL_KNOWN_AT),
        until=ENDS,
        source=f"a stream of our own making, seed {seed}",
    )


def _day(day: date, seed: int, changes_on: date | None) -> pl.DataFrame:
    draws = np.random.default_rng([seed, day.toordinal()])
    season = np.sin(2 * np.pi * (day.timetuple().tm_yday - 100) / 365)
    inputs = draws.normal(size=(A_DAY, _INPUTS))
    inputs[:, 1] += 1.5 * season
    inputs[:, 4] += 0.8 * season + draws.normal(scale=0.5)
    weights = _WEIGHTS * _TURNED if changes_on is not None and day >= changes_on else _WEIGHTS
    bends = 0.5 * inputs[:, 0] * inputs[:, 2]
    chance = 1 / (1 + np.exp(-(inputs @ weights + bends - 1.0)))
    if BAD_WEEK <= day < BAD_WEEK + timedelta(days=7):
        chance = 0.5 * chance + 0.25
    begins = day_start(day, _ZONE)
    happens = [begins + timedelta(seconds=float(second)) for second in np.sort(draws.uniform(0, 86_400, A_DAY))]
    late = [timedelta(hours=float(hours)) for hours in draws.uniform(3, 36, A_DAY)]
    return pl.DataFrame(
        {
            TASK.key: [f"{day:%Y%m%d}-{number:03}" for number in range(A_DAY)],
            HAPPENS_AT: happens,
            "one": (draws.uniform(size=A_DAY) < chance).astype(np.int8),
            KNOWN_AT: _sum(happens, late),
            **{name: inputs[:, number] for number, name in enumerate(_COLUMNS)},
        },
        schema_overrides={HAPPENS_AT: pl.Datetime("us", "UTC"), KNOWN_AT: pl.Datetime("us", "UTC")},
    )


def _sum(moments: list[datetime], spans: list[timedelta]) -> list[datetime]:
    return [moment + span for moment, span in zip(moments, spans, strict=True)]
