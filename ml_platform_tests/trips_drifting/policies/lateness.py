"""When the trees are trained again: when what they are asked with moves."""

from datetime import timedelta

from ml_platform.spec import RetrainPolicy

lateness = RetrainPolicy(
    description="On drift of the served features.",
    max_loss_ratio=None,
    triggers=("inputs",),
    cooldown=timedelta(days=2),
    estimate="told",
)
