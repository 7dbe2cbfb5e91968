"""Values go missing, more each day, where hardly one ever did."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import missing

null_share_rising = Fault(
    kind="null share rising",
    description="A seventh of the temperatures is missing, and a tenth more each day.",
    caught="more missing values than on any day of the year",
    table="weather",
    columns=("temp",),
    wrong=missing("temp", share=0.15, growing=0.1),
)
