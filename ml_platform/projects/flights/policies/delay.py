"""When the delay model is trained again."""

from datetime import timedelta

from ml_platform.spec import RetrainPolicy

# Chosen on April to July 2013 alone, among thirteen (decision 0026 lists them with what they came to): log-loss .4914
# with two retrainings, where four-weekly came to .4967 with four. The cooldown bounds their number to six in the rest
# of the year.
delay = RetrainPolicy(
    description="The week's log-loss on late labels against the champion's first week, with a cooldown.",
    window=timedelta(days=7),
    max_loss_ratio=1.1,
    cooldown=timedelta(days=42),
    estimate="holds",  # no gain in sight, no training; in the backtest the year came to the same versions without
)
