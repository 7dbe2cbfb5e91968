"""A code with a blank behind it."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import value

code_padded = Fault(
    kind="code renamed",
    description="The weather's origins arrive as fixed-width text: a blank behind the code.",
    caught="an origin that is none of the three",
    table="weather",
    columns=("origin",),
    wrong=value("origin", pl.col("origin") + " "),
)
