"""The service that people ask."""

from ml_platform.spec import Service

delay = Service(
    model="delay_lightgbm",
    description="Answers with the probability that a flight arrives at least 15 minutes late.",
    skew_share=0.25,  # some 230 flights a day; a fault of a feature shows in most of them
)
