"""Request-time features: computed from a request and what was looked up for it, in training and serving alike."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from ml_platform.features.live_view import micros
from ml_platform.spec import DeclarationError, RequestView, View
from ml_platform.spec.features import feature_name
from ml_platform.spec.request_views import POLARS_TYPES


class RequestPlan:
    """Features of request views as one select, worked out once.

    Whether it is given a training set or the one row of a request, the same expressions are evaluated; each row stands
    for itself (checked when a project is loaded), so that the values are the same to the bit.

    names: full names of the features, in order.
    inputs: the columns that they are made of, with their types; of these ``looked_up`` are values of other views, by
        full name, and ``fields`` what a request carries beside its entities, with our names of the types.
    """

    def __init__(self, views: Iterable[View], wanted: Collection[str] | None = None) -> None:
        """``views``: request views, and those whose values they read; ``wanted``: full names; ``None`` is all."""
        views = list(views)
        stored = {feature_name(view.name, name): kind for view in views for name, kind in view.schema().items()}
        made = {
            feature_name(view.name, feature.name): (view, feature)
            for view in views
            if isinstance(view, RequestView)
            for feature in view.features
        }
        chosen = {name: made[name] for name in made if wanted is None or name in wanted}
        self.names = tuple(chosen)
        self.looked_up = tuple(name for view, feature in chosen.values() for name in view.looked_up(feature))
        reads = [(view, name) for view, feature in chosen.values() for name in feature.reads]
        self.fields: dict[str, str] = {name: view.request[name] for view, name in reads if name in view.request}
        self.inputs = {name: POLARS_TYPES[view.of_request.get(name) or stored[name]] for view, name in reads}
        self._values = [feature.exact().alias(name) for name, (_, feature) in chosen.items()]

    def of_frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The features of a frame's rows, in their order; ``rows`` holds the inputs.

        Raises:
            DeclarationError: an expression cannot be evaluated for one of them.
        """
        typed = rows.select(pl.col(name).cast(dtype) for name, dtype in self.inputs.items())
        return self._evaluated(typed)

    def of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        """One tuple of features a row, from plain values of the inputs (times as aware ``datetime``).

        Raises:
            DeclarationError: an expression cannot be evaluated for one of them.
        """
        # From counted times: a frame of moments with a zone takes twice as long to make.
        counted = [{name: _counted(row[name]) for name in self.inputs} for row in rows]
        return self._evaluated(pl.from_dicts(counted, self.inputs)).rows()

    def _evaluated(self, typed: pl.DataFrame) -> pl.DataFrame:
        try:
            return typed.select(self._values)
        except pl.exceptions.PolarsError as error:
            said = str(error).splitlines()[0]
            raise DeclarationError(
                f"the request features {', '.join(self.names)} cannot be computed of these {typed.height} rows "
                f"({said}); make their expressions give null where they have no answer (strict=False)"
            ) from error


def _counted(value: Any) -> Any:
    return micros(value) if isinstance(value, datetime) else value
