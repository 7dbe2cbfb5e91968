"""What counts as drift in the features that the delay service was asked with."""

from ml_platform.spec import DriftPolicy, JointRule

delay_inputs = DriftPolicy(
    service="delay",
    description="Each served feature of a day, and whether they belong together: pages on a sharp change only.",
    joint=JointRule(),
    joint_every_days=3,  # it takes as long as all features one by one
)
