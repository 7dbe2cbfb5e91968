"""The question of this project, shared by its models and services."""

from datetime import timedelta

import polars as pl

from ml_platform.spec import Label, Task

delay = Task(
    name="delay",
    description="P(arrival delay >= 15 min), asked two hours before the scheduled departure.",
    spine="flight_schedules",
    key="flight_id",
    happens_at="sched_dep",
    lead=timedelta(hours=2),
    entities=("flight_id", "origin", "dest", "carrier", "flight", "tailnum", "sched_hour"),
    categorical=("carrier", "origin", "dest"),
    label=Label(
        table="flight_outcomes",
        on=("flight_id",),
        value=(pl.col("arr_delay") >= 15).cast(pl.Int8),
        quantity=pl.col("arr_delay"),
        description="1 if the flight arrived at least 15 minutes late; null if it was cancelled or diverted.",
    ),
)
