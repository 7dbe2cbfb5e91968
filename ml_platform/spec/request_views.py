"""Request views and what they are made of: values that exist only when they are asked for, never stored."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import polars as pl

from ml_platform.spec.features import Entity, FeatureView
from ml_platform.spec.models import ASKED_AT

RequestType = Literal["string", "int64", "float64", "bool", "timestamp"]
POLARS_TYPES: Mapping[str, pl.DataType] = {
    "string": pl.String(),
    "int64": pl.Int64(),
    "float64": pl.Float64(),
    "bool": pl.Boolean(),
    "timestamp": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class Computed:
    """A value of one row, made of that row's columns alone; NaN and infinity are missing (null).

    value: over the view's entities, its ``request`` columns, ``asked_at``, and values that are looked up for the row,
        by their full names (``<view>__<feature>``). Each row for itself: what looks at other rows is refused.
    """

    name: str
    value: pl.Expr
    value_type: Literal["int64", "float64"] = "float64"

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it is made of."""
        return tuple(dict.fromkeys(self.value.meta.root_names()))

    def exact(self) -> pl.Expr:
        """The value in its declared type, as it is trained on and served."""
        typed = self.value.cast(POLARS_TYPES[self.value_type])
        return typed if self.value_type == "int64" else pl.when(typed.is_finite()).then(typed)


@dataclass(frozen=True, kw_only=True)
class RequestView:
    """Features computed when they are asked, from the request and from the values that are looked up for it.

    A model names it in its ``views``, behind those that it reads.

    entities: what its expressions read of the row's entities.
    request: further columns that its expressions read: a request has to bring them, and in training they are the
        columns of the task's spine of these names (derived ones included). ``happens_at`` is the moment of the event,
        whatever the spine calls it; ``asked_at``, when it is asked, is always there and need not be named.
    """

    features: tuple[Computed, ...]
    description: str
    entities: tuple[Entity, ...] = ()
    request: Mapping[str, RequestType] = field(default_factory=dict)
    owner: str = "team:data-science"
    name: str = ""

    @property
    def entity_names(self) -> tuple[str, ...]:
        """The entity columns that are read, in declared order."""
        return tuple(entity.name for entity in self.entities)

    def schema(self) -> dict[str, str]:
        """Feature name -> value type (``int64`` or ``float64``), in declared order."""
        return {feature.name: feature.value_type for feature in self.features}

    @cached_property
    def of_request(self) -> dict[str, str]:
        """What comes from the request: column -> its type, ``asked_at`` included."""
        return {ASKED_AT: "timestamp", **self.request, **{entity.name: entity.dtype for entity in self.entities}}

    def looked_up(self, feature: Computed) -> tuple[str, ...]:
        """Full names of the values of other views that the feature reads."""
        return tuple(name for name in feature.reads if name not in self.of_request)

    @property
    def views_read(self) -> tuple[str, ...]:
        """The views whose values it reads."""
        names = (name for feature in self.features for name in self.looked_up(feature))
        return tuple(dict.fromkeys(name.partition("__")[0] for name in names))


View = FeatureView | RequestView  # what a model names in its views


def request_fields(views: Iterable[View]) -> dict[str, str]:
    """The columns, beside the entities, that a request has to bring for these views, with their types."""
    return {name: kind for view in views if isinstance(view, RequestView) for name, kind in view.request.items()}
