"""What counts as drift in the features that the delay service was asked with."""

from ml_platform.spec import DriftPolicy

delay_inputs = DriftPolicy(
    service="delay",
    description="Each served feature of a day: pages on a sharp change only.",
)
