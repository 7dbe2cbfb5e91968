"""A register of which half is lost."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import kept

reference_shrunk = Fault(
    kind="reference table shrunk",
    description="The register lacks all aircraft built in 2001 or later.",
    caught="fewer aircraft than there were",
    table="planes",
    wrong=kept(pl.col("year") < 2001),
)
