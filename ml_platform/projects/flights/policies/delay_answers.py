"""What counts as drift in the probabilities that the delay service answered."""

from ml_platform.spec import DriftPolicy

delay_answers = DriftPolicy(
    service="delay",
    of="predictions",
    description="The day's probabilities of a late arrival: pages on a sharp change only.",
)
