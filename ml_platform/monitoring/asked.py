"""What was asked and served, as the columns of a training set: for whoever groups answers as training rows."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from ml_platform.spec import HAPPENS_AT, ModelSpec, Project, Slice
from ml_platform.stores.prediction_log import named_features


def followed(slices: Mapping[str, Slice], project: Project, spec: ModelSpec) -> dict[str, Slice]:
    """Those slices whose columns are known when it is asked: entities, the event's time, and the model's features."""
    known = set(_types(project, spec)) | {
        f"{view.name}__{name}" for view in project.views_of(spec) for name in view.schema()
    }
    return {name: each for name, each in slices.items() if set(each.by.meta.root_names()) <= known}


def columns_of(predictions: pl.DataFrame, names: Collection[str], project: Project, spec: ModelSpec) -> pl.DataFrame:
    """These columns of each prediction, in order: null where a row was asked or served without.

    predictions: distinct rows of the log: ``prediction_id``, ``entities`` (JSON), ``feature_names``, ``features``.
    """
    types = {name: kind for name, kind in _types(project, spec).items() if name in names}
    rows = [json.loads(text) for text in predictions["entities"]]
    asked = pl.DataFrame({name: _column([row.get(name) for row in rows], kind) for name, kind in types.items()})
    served = predictions.select("prediction_id").join(
        named_features(predictions), on="prediction_id", how="left", maintain_order="left"
    )
    others = [
        served[name] if name in served.columns else pl.Series(name, [None] * predictions.height, dtype=pl.Float64)
        for name in sorted(set(names) - set(types))
    ]
    return pl.DataFrame([*asked.get_columns(), *others])


def _types(project: Project, spec: ModelSpec) -> dict[str, Any]:
    entities = {entity.name: entity.dtype for view in project.feature_views_of(spec) for entity in view.entities}
    kinds = {name: pl.Int64 if kind == "int64" else pl.String for name, kind in entities.items()}
    named = {name: kinds.get(name, pl.String) for name in (*spec.task.entities, *spec.task.categorical)}
    return {HAPPENS_AT: pl.Datetime("us", "UTC"), **named}


def _column(values: list[Any], kind: Any) -> pl.Series:
    if isinstance(kind, pl.Datetime):
        texts = pl.Series(values, dtype=pl.String)
        return texts.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False)
    return pl.Series(values, dtype=kind, strict=False)
