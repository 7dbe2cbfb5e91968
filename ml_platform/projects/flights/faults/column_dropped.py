"""A column is gone."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import dropped

column_dropped = Fault(
    kind="column dropped",
    description="The weather is given without its gusts.",
    caught="a declared column is missing",
    table="weather",
    columns=("wind_gust",),
    wrong=dropped("wind_gust"),
)
