"""A code that nobody has heard of."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import renamed

carrier_renamed = Fault(
    kind="code renamed",
    description="United writes its outcomes under UAL instead of UA.",
    caught="a carrier that is not among the airlines",
    table="flight_outcomes",
    columns=("carrier",),
    wrong=renamed("carrier", "UA", "UAL"),
)
