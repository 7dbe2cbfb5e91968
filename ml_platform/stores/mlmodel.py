"""The ``MLmodel`` file by which MLflow knows what a logged model's folder holds: none of it is a pickle."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any


def mlmodel(estimator: str, inputs: Sequence[str], run_id: str, model_id: str) -> dict[str, Any]:
    """Its content (JSON is YAML, too), with the encoded inputs as signature.

    Written by hand, since saving through MLflow's flavours costs seconds: they copy the model in and guess its
    requirements from a fresh process.
    """
    from importlib.metadata import version

    import mlflow

    if estimator == "torch":
        flavours: dict[str, Any] = {
            "pytorch": {"model_data": ".", "pytorch_version": version("torch"), "code": None},
        }
    elif estimator == "lightgbm":
        booster = {"data": "model.txt", "lgb_version": version("lightgbm"), "code": None}
        booster["model_class"] = "lightgbm.basic.Booster"
        flavours = {"lightgbm": booster, "python_function": {"loader_module": "mlflow.lightgbm", "data": "model.txt"}}
    else:
        flavours = {"python_function": {"loader_module": "ml_platform.training.pyfunc", "data": "."}}
    columns = [{"type": "double", "name": name, "required": False} for name in inputs]
    answers = [{"type": "double", "name": "probability", "required": True}]
    return {
        "signature": {"inputs": json.dumps(columns), "outputs": json.dumps(answers)} if inputs else None,
        "flavors": flavours,
        "mlflow_version": mlflow.__version__,
        "model_id": model_id,
        "model_uuid": model_id,
        "run_id": run_id,
        "utc_time_created": str(datetime.fromtimestamp(time.time(), UTC).replace(tzinfo=None)),
    }
