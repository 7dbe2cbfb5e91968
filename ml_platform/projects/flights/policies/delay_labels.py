"""What counts as drift in whether flights arrived late."""

from ml_platform.spec import DriftPolicy

delay_labels = DriftPolicy(
    service="delay",
    of="labels",
    description="The share of late arrivals among the truths of a day: pages on a sharp change only.",
)
