"""A sensor repeats itself."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import stuck

stuck_thermometer = Fault(
    kind="stuck sensor",
    description="The thermometers of all airports repeat the first reading of the day.",
    caught="a run of equal readings longer than any of the year (14 hours)",
    table="weather",
    columns=("temp",),
    wrong=stuck("temp", by="origin"),
)
