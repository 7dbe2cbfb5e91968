"""A small neural network on the same inputs, trained when somebody asks for it."""

from ml_platform.projects.flights.slices import ALL as SLICES
from ml_platform.projects.flights.task import delay
from ml_platform.projects.flights.views import ALL
from ml_platform.spec import ModelSpec

delay_torch = ModelSpec(
    task=delay,
    views=ALL,
    estimator="torch",
    description="A perceptron with embeddings on all views; trained on demand.",
    parameters={"hidden": (128, 64), "learning_rate": 0.002},
    slices=SLICES,
    challenges="delay_lightgbm",
)
