"""The serving model on all history instead of ninety days: which is better changes with the season."""

from dataclasses import replace

from ml_platform.projects.flights.models.delay_lightgbm import delay_lightgbm as _rolling

delay_expanding = replace(
    _rolling,
    description="LightGBM on all views and all history; trained on demand.",
    # All history carries larger trees.
    parameters={"num_leaves": 63, "learning_rate": 0.05, "min_data_in_leaf": 100, "feature_fraction": 0.7},
    train_window=None,
    search=None,
    policy=None,
    challenges="delay_lightgbm",
)
