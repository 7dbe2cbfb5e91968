"""The online reads of some questions as the service does them, for who wants to time them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import polars as pl

from ml_platform.evaluation.cost import OnlineReads, Read
from ml_platform.features.live import LiveViews
from ml_platform.features.request_values import RequestPlan
from ml_platform.serving.answers import Vector, VectorPlan, grid_moment
from ml_platform.serving.champion import Lookup, plan
from ml_platform.serving.requests import Row
from ml_platform.spec import ASKED_AT, KNOWN_AT, ModelSpec, Project, Task
from ml_platform.spec.features import feature_name
from ml_platform.stores.delta import Lake
from ml_platform.stores.online import Online
from ml_platform.stores.tiles import TileStore
from ml_platform.training.training_set import question_rows

_QUESTIONS = 20  # seventeen views take a quarter of a second on SQLite, sixty features a whole one


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """Of some inputs what a champion knows of its own."""

    categorical: tuple[str, ...]
    feature_names: tuple[str, ...]
    lookups: tuple[Lookup, ...]
    computed: RequestPlan | None


def online_reads(
    project: Project, spec: ModelSpec, lake: Lake, online: Online, tiles: TileStore, now: datetime
) -> OnlineReads:
    """Of the questions that are asked nearest to ``now``, read as of now: as one request each, by the service's plan.

    Raises:
        MissingHistory: there is no table of questions.
    """
    asked, live = _nearest(project, spec, lake, now), LiveViews(project.views.values(), tiles)
    as_of = grid_moment(now, spec.task.grid)

    def of(inputs: Sequence[str]) -> list[Read]:
        categorical, lookups, computed = plan(inputs, spec.task, project.all_views)
        others = tuple(inputs[len(categorical) :])
        planned = _Planned(categorical=categorical, feature_names=others, lookups=tuple(lookups), computed=computed)
        vectors = VectorPlan(planned, online, live)
        return [partial(_read, vectors, row, now, as_of) for row in asked]

    stored = project.feature_views_of(spec)
    return OnlineReads(
        of=of,
        looked_up={feature_name(view.name, name) for view in stored for name in view.schema()},
        told=f"{len(asked)} questions, those asked nearest to {now:%Y-%m-%d %H:%M} UTC, each a request of its own",
    )


def _read(vectors: VectorPlan[_Planned], row: Row, now: datetime, as_of: datetime) -> Vector:
    return vectors.read([row], now, as_of)[0]


def _nearest(project: Project, spec: ModelSpec, lake: Lake, now: datetime) -> list[Row]:
    """Rows as they are sent."""
    task, fields = spec.task, RequestPlan(project.views_of(spec)).fields
    known = lake.scan(f"raw/{task.spine}").filter(pl.col(KNOWN_AT) <= now).collect()
    questions = question_rows(task, known, fields).sort((pl.col(ASKED_AT) - now).abs(), task.key)
    return [_sent(row, task, fields) for row in questions.head(_QUESTIONS).iter_rows(named=True)]


def _sent(row: Mapping[str, Any], task: Task, fields: Iterable[str]) -> Row:
    chosen = {name: row[name] for name in (task.key, *task.entities, *fields)}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in chosen.items()}
