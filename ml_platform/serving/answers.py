"""From rows to answers: look features up, predict, make the records of the log."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Protocol

import numpy as np
import polars as pl

from ml_platform.features.live import LiveViews
from ml_platform.features.request_values import RequestPlan
from ml_platform.serving.champion import Champion, Lookup
from ml_platform.serving.requests import Row
from ml_platform.spec import ASKED_AT, ServiceError
from ml_platform.stores.online import Online
from ml_platform.stores.prediction_log import Prediction

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Vector = dict[str, Any]


def grid_moment(moment: datetime, grid: timedelta) -> datetime:
    """The last full step of the grid (counted from 1970 in UTC) at or before the moment; itself without a grid."""
    if not grid:
        return moment
    return _EPOCH + (moment - _EPOCH) // grid * grid


class Planned(Protocol):
    """What is to be read for a model's inputs; every champion knows it of its own."""

    @property
    def categorical(self) -> tuple[str, ...]:
        """Inputs that are sent."""

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """What is looked up."""

    @property
    def computed(self) -> RequestPlan | None:
        """What is made of both."""


class VectorPlan:
    """How a champion's vectors are put together, worked out once: what is stored, and what is computed when asked."""

    def __init__(self, champion: Planned, online: Online, live: LiveViews) -> None:
        """Windows are computed from ``live``; the other views are read from ``online``."""
        self.champion, self.live = champion, live
        self._followed = [lookup for lookup in champion.lookups if lookup.view.name in live.views]
        stored = [lookup for lookup in champion.lookups if lookup.view.name not in live.views]
        self._names = [full_name for lookup in stored for _, full_name in lookup.features]
        wanted = [(lookup.view, [feature for feature, _ in lookup.features]) for lookup in stored]
        self._stored = online.plan(wanted, fill=True) if wanted else None

    def read(self, rows: Sequence[Row], asked_at: datetime, as_of: datetime) -> list[Vector]:
        """One vector a row, keyed by the model's inputs; an entity that is null or was never seen gives None.

        What is stored is the newest value; one that is older than its view's ``online_for`` at ``as_of`` is missing.
        Request features come last, made of the row, the moment asked and the values found.

        Raises:
            StoreUnavailable: a store cannot be reached.
        """
        vectors: list[Vector] = [{name: row[name] for name in self.champion.categorical} for row in rows]
        if self._stored is not None:
            for vector, values in zip(vectors, self._stored.read(rows, as_of).values, strict=True):
                vector.update(zip(self._names, values, strict=True))
        asked: list[tuple[str, tuple[Any, ...]]] = [
            (lookup.view.name, tuple(row[name] for name in lookup.view.entity_names))
            for lookup in self._followed
            for row in rows
        ]
        computed = iter(self.live.values(asked, as_of))
        for lookup in self._followed:
            for vector, found in zip(vectors, islice(computed, len(rows)), strict=True):
                vector.update((full_name, found[feature]) for feature, full_name in lookup.features)
        if self.champion.computed is not None:
            _add_computed(self.champion.computed, vectors, rows, asked_at)
        return vectors


def _add_computed(computed: RequestPlan, vectors: Sequence[Vector], rows: Sequence[Row], asked_at: datetime) -> None:
    """All of a request's rows at once; a time stands in a row as it was sent, in ISO 8601."""
    times = [name for name, dtype in computed.inputs.items() if isinstance(dtype, pl.Datetime) and name != ASKED_AT]
    inputs: list[Vector] = []
    for row, vector in zip(rows, vectors, strict=True):
        read = {**row, **vector, ASKED_AT: asked_at}
        read.update((name, row[name] and datetime.fromisoformat(str(row[name]))) for name in times)
        inputs.append(read)
    for vector, values in zip(vectors, computed.of_rows(inputs), strict=True):
        vector.update(zip(computed.names, values, strict=True))


def score(champion: Champion, vectors: Sequence[Vector]) -> list[float]:
    """One probability a vector.

    Raises:
        ServiceError: the model answered with something that is no probability.
    """
    answers = np.asarray(champion.model.predict_rows(vectors))
    if answers.shape != (len(vectors),) or not ((answers >= 0) & (answers <= 1)).all():
        raise ServiceError(
            f"version {champion.version} of {champion.name} gave no probability for each of {len(vectors)} rows; "
            f"promote an earlier version"
        )
    return [float(value) for value in answers]


def records(
    champion: Champion,
    key: str,
    rows: Sequence[Row],
    vectors: Sequence[Vector],
    probabilities: Sequence[float],
    moments: tuple[datetime, datetime, datetime],
) -> list[Prediction]:
    """What goes into the log; ``moments`` are asked at, features as of, answered at."""
    asked_at, as_of, answered_at = moments
    return [
        Prediction(
            prediction_id=str(row[key]),
            model=champion.name,
            model_version=champion.version,
            probability=probability,
            asked_at=asked_at,
            as_of=as_of,
            answered_at=answered_at,
            entities=row,
            feature_names=champion.feature_names,
            features=[vector[name] for name in champion.feature_names],
        )
        for row, vector, probability in zip(rows, vectors, probabilities, strict=True)
    ]
