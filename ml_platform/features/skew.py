"""Training-serving skew: served vectors against vectors recomputed from the raw tables by the slow, obvious way."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.features.oracle import Oracle, Value
from ml_platform.spec import KNOWN_AT, FeatureView, Latest, Verdict

COLUMNS = {
    "prediction_id": pl.String,
    "feature": pl.String,
    "served": pl.Float64,
    "recomputed": pl.Float64,
}


def compare(
    served: pl.DataFrame, views: Mapping[str, FeatureView], frames: Mapping[str, pl.DataFrame]
) -> tuple[int, pl.DataFrame]:
    """How many values were compared, and each that differs in any bit (missing against zero differs, too).

    served: predictions as logged (``entities`` as JSON, ``as_of``, ``feature_names``, ``features``).
    frames: raw tables by name, reaching back from the first ``as_of`` as far as the views' windows.
    """
    entities = served["entities"].str.json_decode(infer_schema_length=None).struct.unnest() if served.height else None
    oracles = {name: Oracle(view, _within_reach(view, frames, served["as_of"], entities)) for name, view in views.items()}
    memory: dict[tuple[str, tuple[Any, ...], datetime], dict[str, Value]] = {}
    compared, differing = 0, []
    for row in served.iter_rows(named=True):
        entities = json.loads(row["entities"])
        for full_name, value in zip(row["feature_names"], row["features"], strict=True):
            view_name, feature = full_name.split("__", 1)
            entity = tuple(entities[name] for name in views[view_name].entity_names)
            place = (view_name, entity, row["as_of"])
            if place not in memory:
                memory[place] = oracles[view_name].values(entity, row["as_of"])
            expected = memory[place][feature]
            compared += 1
            if value != (None if expected is None else float(expected)):
                differing.append((row["prediction_id"], full_name, value, expected))
    return compared, pl.DataFrame(differing, schema=COLUMNS, orient="row")


def _within_reach(
    view: FeatureView, frames: Mapping[str, pl.DataFrame], moments: pl.Series, entities: pl.DataFrame | None
) -> dict[str, pl.DataFrame]:
    """Rows that can matter: going through a month of all rows for a window of an hour takes minutes."""
    main = frames[view.source]
    if entities is None:
        return dict(frames)
    if not any(isinstance(feature, Latest) for feature in view.features):
        # What is known long before it happens (a timetable) is in reach by its time, not by when it became known.
        first = pl.lit(moments.min()) - view.lookback - timedelta(days=1)
        main = main.filter(pl.max_horizontal(view.time, KNOWN_AT) >= first)
    names = [name for name in view.entity_names if name not in view.derive]
    asked = entities.select(pl.col(name).cast(main.schema[name]) for name in names).unique()
    return {**frames, view.source: main.join(asked, on=names, how="semi")}


def verdict(compared: int, differing: pl.DataFrame) -> Verdict:
    """Zero differences pass; the reason names the features that differ and one example."""
    measures = {"values_compared": compared, "values_differing": differing.height}
    if compared == 0:
        return Verdict.unknown("nothing was served, so nothing could be compared", **measures)
    if differing.is_empty():
        return Verdict(state="pass", reason=f"all {compared} served values equal the recomputed", measures=measures)
    worst = differing["feature"].value_counts(sort=True).head(3)
    named = ", ".join(f"{feature} ({count})" for feature, count in worst.iter_rows())
    one = differing.row(0, named=True)
    reason = (
        f"{differing.height} of {compared} served values differ from the recomputed: {named}; for example "
        f"{one['prediction_id']} was served {one['feature']} = {one['served']}, recomputed {one['recomputed']}"
    )
    return Verdict(state="fail", reason=reason, measures=measures)
