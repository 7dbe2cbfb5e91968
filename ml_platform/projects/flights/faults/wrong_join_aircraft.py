"""Each flight with another aircraft."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import permuted

wrong_join_aircraft = Fault(
    kind="wrong join",
    description="The outcomes of a day stand beside the wrong tail numbers; the column's values are those of the day.",
    caught="aircraft that fly for another carrier than ever before",
    table="flight_outcomes",
    columns=("tailnum",),
    wrong=permuted("tailnum"),
)
