"""Degrees of another scale."""

from ml_platform.spec import Fault
from ml_platform.spec.wrongs import scaled

unit_celsius = Fault(
    kind="unit change",
    description="The weather's temperatures arrive in °C instead of °F.",
    caught="the dew point, still in °F, lies above the temperature",
    table="weather",
    columns=("temp",),
    wrong=scaled("temp", 5 / 9, add=-160 / 9),
)
