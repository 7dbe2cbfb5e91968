"""When the trees are trained again."""

from datetime import timedelta

from ml_platform.spec import RetrainPolicy

lateness = RetrainPolicy(
    description="Two days against the champion's first two.",
    window=timedelta(days=2),
    max_loss_ratio=1.7,
    min_rows=100,
    cooldown=timedelta(days=2),
)
