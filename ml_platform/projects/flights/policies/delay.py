"""When the delay model is trained again."""

from datetime import timedelta

from ml_platform.spec import RetrainPolicy

delay = RetrainPolicy(
    description="The week's log-loss on late labels against the champion's first week, with a cooldown.",
    window=timedelta(days=7),
    max_loss_ratio=1.1,
    cooldown=timedelta(days=14),
)
