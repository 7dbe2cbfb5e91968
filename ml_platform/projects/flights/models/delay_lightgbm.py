"""Gradient-boosted trees: the model that serves."""

from ml_platform.projects.flights.slices import ALL as SLICES
from ml_platform.projects.flights.task import delay
from ml_platform.projects.flights.views import ALL
from ml_platform.spec import Between, Fairness, ModelSpec, Search

delay_lightgbm = ModelSpec(
    task=delay,
    views=ALL,
    estimator="lightgbm",
    description="LightGBM on all views.",
    # On 90 days as good as trees of twice the leaves at a lower rate, in less than half the time.
    parameters={"num_leaves": 31, "learning_rate": 0.08, "min_data_in_leaf": 100, "feature_fraction": 0.5},
    search=Search(
        space={
            "num_leaves": Between(15, 127, log=True),
            "learning_rate": Between(0.02, 0.15, log=True),
            "min_data_in_leaf": Between(20, 400, log=True),
            "feature_fraction": Between(0.3, 1.0),
            "lambda_l2": Between(0.01, 30.0, log=True),
        }
    ),
    policy="delay",
    slices=SLICES,
    fairness=Fairness(slices=("origin", "carrier")),  # is one airport or airline called late more than it deserves?
)
