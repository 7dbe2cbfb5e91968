"""Each report beside another hour or airport."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import permuted

wrong_join_weather = Fault(
    kind="wrong join",
    description="The weather's measurements of a day stand beside the wrong hours and airports; each column's values "
    "are those of the day.",
    caught="steps from hour to hour that no weather makes",
    table="weather",
    columns=("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
    wrong=permuted("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
)
