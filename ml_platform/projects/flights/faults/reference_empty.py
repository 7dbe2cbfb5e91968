"""A register with nothing in it."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import kept

reference_empty = Fault(
    kind="reference table empty",
    description="The register of aircraft is empty.",
    caught="a reference table without a row",
    table="planes",
    wrong=kept(pl.lit(False)),
)
