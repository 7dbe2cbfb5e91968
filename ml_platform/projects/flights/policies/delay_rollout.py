"""How a new delay model takes over."""

from datetime import timedelta

import polars as pl

from ml_platform.spec import BusinessMetric, RolloutPolicy

delay_rollout = RolloutPolicy(
    service="delay",
    description="A day of flights unseen, then a growing share of the flights; by loss and by what it costs.",
    # Some 900 flights are asked about a day, about 9 of them in the first step.
    shadow_units=600,
    step_units=15,
    step_time=timedelta(hours=6),
    loss_margin=0.005,
    metrics={
        "cost": BusinessMetric(
            # A passenger who was not warned waits at the airport; one warned for nothing checks the board once more.
            value=pl.when(pl.col("probability") >= 0.25).then(1 - pl.col("label")).otherwise(3 * pl.col("label")),
            low=0,
            high=3,
            margin=0.03,
            description="A delay that nobody was warned of, in false warnings: three.",
        )
    },
)
