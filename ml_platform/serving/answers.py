"""From rows to answers: look features up, predict, make the records of the log.

Reading is cut in two, so that a service can send what has to be asked of a server itself: ``VectorPlan.ask``, then
``VectorPlan.found``; ``ordered`` does both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import Any, Generic, Protocol, TypeVar

import polars as pl

from ml_platform.features.live import LiveQuestion, LiveViews
from ml_platform.features.request_values import RequestPlan
from ml_platform.serving.champion import Champion, Lookup
from ml_platform.serving.requests import Row
from ml_platform.serving.traffic import CHAMPION, Variant
from ml_platform.spec import ASKED_AT, ServiceError
from ml_platform.stores.exchange import Exchange
from ml_platform.stores.online import Online
from ml_platform.stores.online_plan import Asked
from ml_platform.stores.prediction_record import Prediction

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Vector = dict[str, Any]
Ordered = Sequence[Any]  # a vector's values in the order of the model's inputs


def grid_moment(moment: datetime, grid: timedelta) -> datetime:
    """The last full step of the grid (counted from 1970 in UTC) at or before the moment; itself without a grid."""
    if not grid:
        return moment
    return _EPOCH + (moment - _EPOCH) // grid * grid


@dataclass(frozen=True, slots=True)
class Reading:
    """A read that has begun: what has to be asked of a server, in order, and what the rest needs to know.

    exchanges: none of a store that is no server; it is read with the answers.
    """

    rows: Sequence[Row]
    asked_at: datetime
    as_of: datetime
    stored: Asked | None
    live: LiveQuestion | None
    exchanges: tuple[Exchange[Any], ...]


class Planned(Protocol):
    """What is to be read for a model's inputs; every champion knows it of its own."""

    @property
    def categorical(self) -> tuple[str, ...]:
        """Inputs that are sent."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The other inputs, in order."""

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """What is looked up."""

    @property
    def computed(self) -> RequestPlan | None:
        """What is made of both."""


Asks = TypeVar("Asks", bound=Planned)


class VectorPlan(Generic[Asks]):
    """How a champion's vectors are put together, worked out once: what is stored, and what is computed when asked."""

    def __init__(self, champion: Asks, online: Online, live: LiveViews) -> None:
        """Windows are computed from ``live``; the other views are read from ``online``."""
        self.champion, self.live = champion, live
        self._followed = [lookup for lookup in champion.lookups if lookup.view.name in live.views]
        stored = [lookup for lookup in champion.lookups if lookup.view.name not in live.views]
        self._names = [full_name for lookup in stored for _, full_name in lookup.features]
        wanted = [(lookup.view, [feature for feature, _ in lookup.features]) for lookup in stored]
        self._stored = online.plan(wanted, fill=True) if wanted else None

    @cached_property
    def _inputs(self) -> tuple[str, ...]:
        return (*self.champion.categorical, *self.champion.feature_names)

    @cached_property
    def _take(self) -> Callable[[tuple[Any, ...]], tuple[Any, ...]] | None:
        """What puts stored values into the order of the features, where these are all there is."""
        if self._followed or self.champion.computed is not None or self._stored is None:
            return None
        names = self.champion.feature_names
        if self._names == list(names):
            return tuple
        places = [self._names.index(name) for name in names]
        return itemgetter(*places) if len(places) > 1 else lambda values: (values[places[0]],)

    def read(self, rows: Sequence[Row], asked_at: datetime, as_of: datetime) -> list[Vector]:
        """One vector a row, keyed by the model's inputs; an entity that is null or was never seen gives None.

        What is stored is the newest value; one that is older than its view's ``online_for`` at ``as_of`` is missing.
        Request features come last, made of the row, the moment asked and the values found.

        Raises:
            StoreUnavailable: a store cannot be reached.
            MissingHistory: events that a window depends on may have been dropped.
        """
        stored = None if self._stored is None else self._stored.read(rows, as_of).values
        return self._vectors(rows, stored, self._windows(rows, as_of), asked_at)

    def ordered(self, rows: Sequence[Row], asked_at: datetime, as_of: datetime) -> list[Ordered]:
        """The same, the values in the order of the model's inputs."""
        if self._take is None:
            return [self._in_order(vector) for vector in self.read(rows, asked_at, as_of)]
        assert self._stored is not None, "there is something to take"
        return self._taken(rows, self._stored.read(rows, as_of).values)

    def ask(self, rows: Sequence[Row], asked_at: datetime, as_of: datetime) -> Reading:
        """The first half of ``ordered``; nothing is waited for."""
        stored = None if self._stored is None else self._stored.ask(rows)
        live = self.live.ask(self._keys(rows), as_of) if self._followed else None
        exchanges: list[Exchange[Any]] = []
        if self._stored is not None and stored is not None and self._stored.pack is not None:
            exchanges.append(self._stored.pack(stored.keys))
        if live is not None and (question := self.live.tiles.pack(live.wanted)) is not None:
            exchanges.append(question)
        return Reading(rows, asked_at, as_of, stored, live, tuple(exchanges))

    def found(self, reading: Reading, answers: Iterator[list[Any]]) -> list[Ordered]:
        """The second half. ``answers``: the server's replies to each of the exchanges.

        Raises:
            StoreUnavailable, MissingHistory: as ``read``.
        """
        rows, as_of = reading.rows, reading.as_of
        left = iter(reading.exchanges)
        stored = None
        if self._stored is not None and reading.stored is not None:
            if self._stored.pack is None:
                stored = self._stored.read(rows, as_of).values
            else:
                stored = self._stored.found(reading.stored, next(left).take(next(answers)), as_of).values
            if self._take is not None:
                return self._taken(rows, stored)
        windows: list[Vector] = []
        if reading.live is not None:
            exchange = next(left, None)
            tiles = self.live.tiles.read(reading.live.wanted) if exchange is None else exchange.take(next(answers))
            windows = self.live.found(reading.live, tiles)
        return [self._in_order(vector) for vector in self._vectors(rows, stored, windows, reading.asked_at)]

    def _taken(self, rows: Sequence[Row], stored: Sequence[tuple[Any, ...]]) -> list[Ordered]:
        take, categorical = self._take, self.champion.categorical
        assert take is not None
        return [(*[row[name] for name in categorical], *take(values)) for row, values in zip(rows, stored, strict=True)]

    def _in_order(self, vector: Vector) -> Ordered:
        return [vector[name] for name in self._inputs]

    def _keys(self, rows: Sequence[Row]) -> list[tuple[str, tuple[Any, ...]]]:
        return [
            (lookup.view.name, tuple(row[name] for name in lookup.view.entity_names))
            for lookup in self._followed
            for row in rows
        ]

    def _windows(self, rows: Sequence[Row], as_of: datetime) -> list[Vector]:
        return self.live.values(self._keys(rows), as_of)

    def _vectors(
        self,
        rows: Sequence[Row],
        stored: Sequence[tuple[Any, ...]] | None,
        windows: Sequence[Vector],
        asked_at: datetime,
    ) -> list[Vector]:
        vectors: list[Vector] = [{name: row[name] for name in self.champion.categorical} for row in rows]
        if stored is not None:
            for vector, values in zip(vectors, stored, strict=True):
                vector.update(zip(self._names, values, strict=True))
        computed = iter(windows)
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


def score(champion: Champion, vectors: Sequence[Ordered]) -> list[float]:
    """One probability a vector.

    Raises:
        ServiceError: the model answered with something that is no probability.
    """
    answers = champion.model.predict_ordered(vectors)
    if len(answers) != len(vectors) or not all(type(p) is float and 0 <= p <= 1 for p in answers):
        raise ServiceError(
            f"version {champion.version} of {champion.name} gave no probability for each of {len(vectors)} rows; "
            f"promote an earlier version"
        )
    return answers


def records(
    champion: Champion,
    key: str,
    rows: Sequence[Row],
    vectors: Sequence[Ordered],
    probabilities: Sequence[float],
    moments: tuple[datetime, datetime, datetime],
    part: tuple[Variant, float, float | None] = (CHAMPION, 1.0, None),
) -> list[Prediction]:
    """What goes into the log; ``moments`` are asked at, features as of, answered at.

    part: the version's, the probability with which it came to that, and how long scoring the first row took.
    """
    asked_at, as_of, answered_at = moments
    variant, chance, seconds = part
    first = len(champion.categorical)
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
            features=vector[first:],
            variant=variant,
            chance=chance,
            seconds=None if number else seconds,
        )
        for number, (row, vector, probability) in enumerate(zip(rows, vectors, probabilities, strict=True))
    ]
