"""How new trees take over."""

from datetime import timedelta

from ml_platform.spec import RolloutPolicy

shipping = RolloutPolicy(
    service="desk",
    description="Some hours unseen, then half of the trips.",
    shadow_units=15,
    steps=(0.5,),
    step_units=5,
    step_time=timedelta(hours=2),
    loss_margin=0.1,
)
