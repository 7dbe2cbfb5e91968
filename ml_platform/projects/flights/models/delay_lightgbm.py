"""Gradient-boosted trees: the model that serves."""

from ml_platform.projects.flights.task import delay
from ml_platform.projects.flights.views import ALL
from ml_platform.spec import ModelSpec

delay_lightgbm = ModelSpec(
    task=delay,
    views=ALL,
    estimator="lightgbm",
    description="LightGBM on all views.",
    parameters={"num_leaves": 63, "learning_rate": 0.05, "min_data_in_leaf": 100, "feature_fraction": 0.7},
    policy="delay",
)
