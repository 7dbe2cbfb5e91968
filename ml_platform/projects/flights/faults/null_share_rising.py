"""Values go missing, more each day."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import missing

null_share_rising = Fault(
    kind="null share rising",
    description="A fifth of the pressures is missing, and a fifth more each day.",
    caught="more missing values than on any day of the year",
    table="weather",
    columns=("pressure",),
    wrong=missing("pressure", share=0.2, growing=0.2),
)
