"""Request views in Feast: on-demand feature views whose function is the platform's own evaluation.

In Feast's pandas mode: in its python mode, full feature names (``<view>__<feature>``, by which values of two views that
are called alike are told apart) work offline and come back empty online (Feast 0.67). Ask with
``full_feature_names=True`` wherever views that are read have features of the same name.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from io import StringIO
from typing import Any

import polars as pl

from ml_platform.features.request_values import RequestPlan
from ml_platform.spec import Computed, Project, RequestView
from ml_platform.spec.request_views import POLARS_TYPES, RequestType

_SOURCE = """def {name}(inputs):
    from ml_platform.features.feast_request import evaluated

    return evaluated({declared!r}, inputs)
"""


def on_demand_view(view: RequestView, project: Project, views: Mapping[str, Any], types: Mapping[str, Any]) -> Any:
    """The view as an ``OnDemandFeatureView``.

    The function that Feast keeps holds the declaration itself, so that its registry shows when one was changed.

    views: Feast's feature views by name. types: Feast's types by ours.
    """
    from feast import Field, RequestSource
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.transformation.udf_rehydrate import rehydrate_udf_from_source

    plan = RequestPlan([*project.views.values(), view])
    sources, keys = _sources(view, project)
    sent = {name: kind for name, kind in view.of_request.items() if name in plan.inputs and name not in keys}
    source = _SOURCE.format(name=view.name, declared=_declared(view, plan))
    asked = RequestSource(
        name=f"{view.name}_request", schema=[Field(name=name, dtype=types[kind]) for name, kind in sent.items()]
    )
    return OnDemandFeatureView(
        name=view.name,
        sources=[*(views[name] for name in sources), *([asked] if sent else [])],
        schema=[Field(name=name, dtype=types[kind]) for name, kind in view.schema().items()],
        mode="pandas",
        udf=rehydrate_udf_from_source(source, preferred_name=view.name),
        udf_string=source,
        description=view.description,
        owner=view.owner,
    )


def _sources(view: RequestView, project: Project) -> tuple[list[str], set[str]]:
    """The feature views that Feast has to ask for it, and their join keys.

    Feast hands a join key on only where a feature view is asked by it, and takes one that a request source names for no
    join key at all. So an entity of none of the views that are read brings a view of its own: the one of fewest keys.
    """
    names = list(view.views_read)
    keys = {key for name in names for key in project.views[name].entity_names}
    for entity in view.entity_names:
        others = [other for other in project.views.values() if entity in other.entity_names]
        if entity not in keys and others:
            fewest = min(others, key=lambda other: len(other.entities))
            names.append(fewest.name)
            keys.update(fewest.entity_names)
    return names, keys


def _declared(view: RequestView, plan: RequestPlan) -> str:
    kinds = {dtype: kind for kind, dtype in POLARS_TYPES.items()}
    features = [[f.name, f.value.meta.serialize(format="json"), f.value_type] for f in view.features]
    return json.dumps({"inputs": {name: kinds[dtype] for name, dtype in plan.inputs.items()}, "features": features})


@lru_cache
def _plan(declared: str) -> tuple[RequestPlan, dict[str, RequestType], list[tuple[str, str]]]:
    body = json.loads(declared)
    features = [
        Computed(name, pl.Expr.deserialize(StringIO(text), format="json"), kind)
        for name, text, kind in body["features"]
    ]
    alone = RequestView(name="_", description="", request=body["inputs"], features=tuple(features))
    return RequestPlan([alone]), body["inputs"], [(feature.name, feature.value_type) for feature in features]


def evaluated(declared: str, inputs: Any) -> Any:
    """The features of each row of a pandas frame, under their short names; what Feast calls.

    declared: as ``on_demand_view`` wrote it. inputs: holds the looked-up values under their full names.
    """
    import pandas as pd

    plan, kinds, features = _plan(declared)
    # Feast tries the function out without join keys; asked in earnest, they are there.
    given = {name: inputs[name].tolist() if name in inputs else [None] * len(inputs) for name in kinds}
    listed = zip(*([_plain(value, kind) for value in given[name]] for name, kind in kinds.items()), strict=True)
    rows = plan.of_rows([dict(zip(kinds, values, strict=True)) for values in listed])
    made = {}
    for place, (name, kind) in enumerate(features):
        values = [row[place] for row in rows]
        made[name] = pd.Series(values, dtype="Int64" if kind == "int64" else "float64", index=inputs.index)
    return pd.DataFrame(made)


def _plain(value: Any, kind: str) -> Any:
    """pandas writes what is missing as NaN or NaT, and a whole number beside one as a float."""
    import pandas as pd

    if value is None or pd.isna(value):
        return None
    if kind == "timestamp":
        moment = pd.Timestamp(value, unit="s") if isinstance(value, int | float) else pd.Timestamp(value)
        return moment.tz_localize("UTC") if moment.tzinfo is None else moment
    return int(value) if kind == "int64" else value
