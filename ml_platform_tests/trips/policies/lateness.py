"""When the trees are trained again."""

from datetime import timedelta

from ml_platform.spec import RetrainPolicy

lateness = RetrainPolicy(
    description="Three days against the champion's first three.",
    window=timedelta(days=3),
    max_loss_ratio=1.7,
    min_rows=100,
    cooldown=timedelta(days=2),
)
