"""The obvious way to a request view's values: a table with a row for each answer.

Independent of ``request_values.py`` on purpose, as ``oracle.py`` is of the windows: what goes into an expression, in
which type, and what becomes of NaN, is worked out anew. What the expression means is Polars' to say.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from ml_platform.features.oracle import Value
from ml_platform.spec import FeatureView, RequestView

_TYPES: Mapping[str, pl.DataType] = {
    "string": pl.String(),
    "int64": pl.Int64(),
    "float64": pl.Float64(),
    "bool": pl.Boolean(),
    "timestamp": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class Answer:
    """What one answer was made of.

    row: the request's row as it was sent, with times in ISO 8601. found: a looked-up value by its full name, recomputed
    as well.
    """

    row: Mapping[str, Any]
    asked_at: datetime
    found: Callable[[str], Value]

    def sent(self, name: str) -> Any:
        """A field of the request; the moment of asking is one."""
        return self.asked_at if name == "asked_at" else self.row.get(name)


class RequestOracle:
    """Recomputes one request view's values."""

    def __init__(self, view: RequestView, stored: Mapping[str, FeatureView]) -> None:
        """``stored``: the views that it reads, by name."""
        self.view = view
        self._types: dict[str, pl.DataType] = {}
        for name in dict.fromkeys(name for feature in view.features for name in feature.value.meta.root_names()):
            other, _, feature_read = name.partition("__")
            kind = view.of_request[name] if name in view.of_request else stored[other].schema()[feature_read]
            self._types[name] = _TYPES[kind]

    def values(self, answers: Sequence[Answer]) -> list[dict[str, Value]]:
        """Every feature of each answer, in their order."""
        inputs = {
            name: [
                _read(answer.sent(name), dtype) if name in self.view.of_request else answer.found(name)
                for answer in answers
            ]
            for name, dtype in self._types.items()
        }
        made = pl.DataFrame(inputs, self._types).select(
            feature.value.alias(feature.name) for feature in self.view.features
        )
        kinds = self.view.schema()
        return [{name: _finite(row[name], kind) for name, kind in kinds.items()} for row in made.iter_rows(named=True)]


def _read(value: Any, dtype: pl.DataType) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) and isinstance(dtype, pl.Datetime) else value


def _finite(value: Any, kind: str) -> Value:
    if value is None or not math.isfinite(value):
        return None
    return int(value) if kind == "int64" else float(value)
