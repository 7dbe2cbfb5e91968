"""Nothing measured, written as 9999."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import missing

sentinel = Fault(
    kind="sentinel value",
    description="A tenth of the visibilities is written as 9999.",
    caught="an impossible value",
    table="weather",
    columns=("visib",),
    wrong=missing("visib", share=0.1, becomes=9999.0),
)
