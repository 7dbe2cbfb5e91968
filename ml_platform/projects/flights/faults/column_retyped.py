"""A number is given as text."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import retyped

column_retyped = Fault(
    kind="column retyped",
    description="Flight numbers arrive as text.",
    caught="a column is of another type than declared",
    table="flight_outcomes",
    columns=("flight",),
    wrong=retyped("flight", pl.String),
)
