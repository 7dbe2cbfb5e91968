"""The serving model on all history instead of ninety days: which is better changes with the season."""

from dataclasses import replace

from ml_platform.projects.flights.models.delay_lightgbm import delay_lightgbm as _rolling

delay_expanding = replace(
    _rolling,
    description="LightGBM on all views and all history; trained on demand.",
    train_window=None,
    search=None,
    policy=None,
    challenges="delay_lightgbm",
)
