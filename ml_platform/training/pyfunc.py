"""How MLflow loads a model that is none of its own flavours: `mlflow.pyfunc.load_model` finds this module by name."""

from pathlib import Path
from typing import Any

import numpy as np

from ml_platform.training.encoding import Floats
from ml_platform.training.estimators import load
from ml_platform.training.model import Model


class Encoded:
    """Answers encoded inputs, as MLflow's own flavours of the other estimators do."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Floats:
        """P(label = 1) for (rows, inputs) of numbers."""
        return self.model.predict_matrix(np.ascontiguousarray(np.asarray(data, dtype=np.float64)))


def _load_pyfunc(path: str) -> Encoded:
    return Encoded(load(Path(path)))
