"""Values go missing, more each day, where many always did."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import missing

null_share_rising_pressure = Fault(
    kind="null share rising",
    description="A fifth of the pressures is missing, and a fifth more each day; on clean days it is up to 58 %.",
    caught="nothing: at first it is as usual; once most are missing, any rule",
    table="weather",
    columns=("pressure",),
    wrong=missing("pressure", share=0.2, growing=0.2),
    due="profile",
)
