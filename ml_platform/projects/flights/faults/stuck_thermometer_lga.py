"""One of three sensors repeats itself."""

import polars as pl

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import stuck

stuck_thermometer_lga = Fault(
    kind="stuck sensor at one origin",
    description="The thermometer of LaGuardia repeats the first reading of the day.",
    caught="a run of equal readings at one airport longer than any of the year (14 hours)",
    table="weather",
    columns=("temp",),
    wrong=stuck("temp", by="origin", where=pl.col("origin") == "LGA"),
)
