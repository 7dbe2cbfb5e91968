"""The service that people ask."""

from datetime import timedelta

from ml_platform.spec import Service

delay = Service(
    model="delay_lightgbm",
    description="Answers with the probability that a flight arrives at least 15 minutes late.",
    truths_within=timedelta(days=3),  # the last one is known 33 hours after the scheduled departure
    skew_share=0.25,  # some 230 flights a day; a fault of a feature shows in most of them
)
