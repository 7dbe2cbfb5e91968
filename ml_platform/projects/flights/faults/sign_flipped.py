"""Early is late, and late is early."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import scaled

sign_flipped = Fault(
    kind="sign flipped",
    description="Departure delays arrive with the opposite sign.",
    caught="clock times and delays do not add up",
    table="flight_departures",
    columns=("dep_delay",),
    wrong=scaled("dep_delay", -1),
)
