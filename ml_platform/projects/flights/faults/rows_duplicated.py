"""A file that is read twice."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import doubled

rows_duplicated = Fault(
    kind="rows duplicated",
    description="Every departure comes twice.",
    caught="two rows of one flight and moment",
    table="flight_departures",
    wrong=doubled(),
)
