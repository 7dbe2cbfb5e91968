"""A few small trees."""

import os
from datetime import timedelta
from typing import cast

import polars as pl

from ml_platform.spec import GatePolicy, Label, ModelSpec, Task
from ml_platform.spec.models import Approval

_TASK = Task(
    name="late",
    description="P(ten minutes late or more), asked an hour before the trip leaves.",
    spine="asked",
    key="trip",
    happens_at="leaves",
    lead=timedelta(hours=1),
    grid=timedelta(hours=1),
    entities=("trip", "line"),
    categorical=("line",),
    label=Label(
        table="ended", on=("trip",), value=pl.col("minutes_late") >= 10, description="1 if late; null if cancelled."
    ),
)

# Of the process that loads it; whose word a promotion needs is no reason to train again.
_APPROVAL = cast("Approval", os.environ.get("TRIPS_APPROVAL", "automatic"))

late = ModelSpec(
    task=_TASK,
    views=("planned", "line_past", "leaving"),
    estimator="lightgbm",
    description="Trees with four leaves.",
    parameters={"num_leaves": 4, "learning_rate": 0.2, "min_data_in_leaf": 10},
    train_window=timedelta(days=5),
    min_rows=100,
    # When this little world turns around, what is better than the champion is still worse than a constant.
    gate=GatePolicy(holdout=timedelta(hours=36), min_rows=50, approval=_APPROVAL, baselines=()),
    policy="lateness",
)
