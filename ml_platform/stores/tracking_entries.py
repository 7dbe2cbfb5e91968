"""What a run tells, in MLflow's own entities: measures, curves, datasets, and the tags that its UI looks for."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

RUN_ID, ASSET_KEY = "dagster.run_id", "dagster.asset_key"
NOTE = "mlflow.note.content"  # the description of a run on its page
TRAINING_EXPERIMENT = {"mlflow.experimentKind": "custom_model_development"}  # else its UI asks what it is
_LONGEST_DIGEST = 36  # characters that MLflow's database takes
_MOST_POINTS = 100  # of a curve: more show nothing more, and each is a row in MLflow's database
_DELTA = "delta_table"  # MLflow's name of the kind, by which `mlflow.data.get_source` knows what to make of it
_CONTEXT = "mlflow.data.context"

Context = Literal["training", "evaluation"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A part of a Delta table at one version.

    digest: the content's; MLflow keeps its first 36 characters. context: what the run did with the part. rows: how many
    it has. columns: name -> type, in MLflow's words.
    """

    name: str
    digest: str
    source: str
    version: int
    context: Context
    rows: int
    columns: Mapping[str, str] = field(default_factory=dict)

    def as_input(self) -> Any:
        """MLflow's ``DatasetInput``."""
        from mlflow.entities import Dataset as Logged
        from mlflow.entities import DatasetInput, InputTag

        columns = [{"name": name, "type": kind, "required": True} for name, kind in self.columns.items()]
        logged = Logged(
            self.name,
            self.digest[:_LONGEST_DIGEST],
            _DELTA,
            json.dumps({"path": self.source, "delta_table_version": self.version}),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps({"num_rows": self.rows, "num_elements": self.rows * len(columns)}),
        )
        return DatasetInput(logged, tags=[InputTag(_CONTEXT, self.context)])


def logged_for(inputs: Iterable[Any], context: Context) -> Any:
    """The first of a run's logged datasets that it used so; None: there is none."""
    return next(
        (each.dataset for each in inputs if any((t.key, t.value) == (_CONTEXT, context) for t in each.tags)), None
    )


def measured(values: Mapping[str, float], model_id: str | None, dataset: Any) -> list[Any]:
    """One point a measure, shown beside the logged model and MLflow's dataset that they are of (None: beside none)."""
    from mlflow.entities import Metric

    of = {"model_id": model_id, "dataset_name": getattr(dataset, "name", None)}
    of["dataset_digest"] = getattr(dataset, "digest", None)
    return [Metric(name, float(value), _now_ms(), 0, **of) for name, value in values.items()]


def drawn(curves: Mapping[str, Sequence[float]]) -> list[Any]:
    """Points of curves over the steps of training (the first is 1), thinned out evenly if they are many."""
    from mlflow.entities import Metric

    return [
        Metric(name, float(values[step]), _now_ms(), step + 1)
        for name, values in curves.items()
        for step in _steps(len(values))
    ]


def _steps(count: int) -> list[int]:
    if count <= _MOST_POINTS:
        return list(range(count))
    return sorted({round(n * (count - 1) / (_MOST_POINTS - 1)) for n in range(_MOST_POINTS)})


def source_tags(asset_key: str, commit: str, about: str) -> dict[str, str]:
    """What MLflow's lists show of where a run comes from, and its page as description."""
    told = {"mlflow.source.name": asset_key, "mlflow.source.git.commit": commit, NOTE: about}
    return {**{name: value for name, value in told.items() if value}, "mlflow.source.type": "JOB"}


def registered_as(name: str, version: str | int) -> dict[str, str]:
    """The tag by which a logged model's page leads to the registered version."""
    return {"mlflow.modelVersions": json.dumps([{"name": name, "version": str(version)}])}


def _now_ms() -> int:
    return int(time.time() * 1000)  # a run's own wall-clock time; the platform's time stands in the tags
