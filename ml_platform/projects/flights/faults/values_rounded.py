"""Decimals are lost."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import value

values_rounded = Fault(
    kind="values rounded",
    description="Temperatures are rounded to whole degrees.",
    caught="readings that are no tenth of a degree Celsius",
    table="weather",
    columns=("temp",),
    wrong=value("temp", pl.col("temp").round()),
)
