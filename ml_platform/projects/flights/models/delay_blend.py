"""The mean of trees and network, which err differently."""

from ml_platform.projects.flights.models.delay_lightgbm import delay_lightgbm as _trees
from ml_platform.projects.flights.models.delay_torch import delay_torch as _network
from ml_platform.projects.flights.slices import ALL as SLICES
from ml_platform.projects.flights.task import delay
from ml_platform.projects.flights.views import ALL
from ml_platform.spec import ModelSpec, blend_of

delay_blend = ModelSpec(
    task=delay,
    views=ALL,
    estimator="blend",
    description="The mean of LightGBM and the network; trained on demand.",
    parameters=blend_of(_trees, _network),
    slices=SLICES,
    challenges="delay_lightgbm",
)
