"""Days of rows as histograms, each compared with its season: what the assets do, outside of Dagster."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ml_platform.monitoring.drift import _edges
from ml_platform.monitoring.seasons import references
from ml_platform.monitoring.sharp import day_score, sharp_threshold
from ml_platform.spec.alarms import Seasons, SharpRule

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_RELEARN = 28  # days after which the histograms' edges are learned anew, from the days before
_LEARN_FROM = 84


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A day's distances and the usual largest ones, (features,); both empty where there is too little history."""

    day: date
    features: Sequence[str]
    distances: Floats
    usual: Floats

    @property
    def score(self) -> float | None:
        """The day's largest standardised distance."""
        return day_score(self.distances, self.usual)

    def paged(self, rule: SharpRule) -> list[str]:
        """The features that changed sharply."""
        far = self.distances >= sharp_threshold(self.usual, rule)
        return [name for name, failing in zip(self.features, far, strict=True) if failing]


class Days:
    """Rows of many days: ``values`` (rows, features), NaN for missing, ``place`` (rows,): days since ``first``."""

    def __init__(self, names: Sequence[str], values: Floats, place: Ints, first: date) -> None:
        order = np.argsort(place, kind="stable")
        self.names, self.values, self.place, self.first = list(names), values[order], place[order], first
        self.starts = np.searchsorted(self.place, np.arange(int(place.max()) + 2))
        self._counted = lru_cache(maxsize=2)(self._count)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def date(self, place: int) -> date:
        """The day of a place."""
        return self.first + timedelta(days=place)

    def rows(self, first: int, last: int | None = None) -> Floats:
        """The rows of a day, or of the days in [first, last)."""
        return self.values[self.starts[first] : self.starts[first + 1 if last is None else last]]

    def compared(self, place: int, rule: Seasons, rows: Floats | None = None) -> Compared:
        """A day against its season; ``rows``: its rows if they are others than those that it had."""
        history = [self.date(n) for n in range(place) if self.starts[n] < self.starts[n + 1]]
        found = references([self.date(place)], history, rule)
        if not found.enough or place < _RELEARN // 2:
            return Compared(day=self.date(place), features=(), distances=np.empty(0), usual=np.empty(0))
        edges, counts = self._counted(place - place % _RELEARN if place >= _RELEARN else place)
        today = _histograms(self.rows(place) if rows is None else rows, edges, counts.shape[-1])
        reference = counts[:, [(day - self.first).days for day in found.days]]
        far, usual = _farther(today, reference)
        return Compared(day=self.date(place), features=self.names, distances=far, usual=usual)

    def _count(self, learned: int) -> tuple[list[Floats], Floats]:
        """Edges as learned at a place, and the counts of all days on them, (features, days, bins)."""
        known = self.rows(max(0, learned - _LEARN_FROM), learned)
        edges = [_edges(column[~np.isnan(column)]) for column in known.T]
        width = max(map(len, edges)) + 2
        counts = np.zeros((len(edges), len(self), width))
        for n, some in enumerate(edges):
            places = self.place * width + _bins(self.values[:, n], some, width)
            counts[n] = np.bincount(places, minlength=len(self) * width).reshape(len(self), width)
        return edges, counts


def js_distances(one: Floats, other: Floats) -> Floats:
    """Jensen-Shannon distances (base 2) of counts, (..., bins) each; 1 where a side is empty."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = (counts / counts.sum(axis=-1, keepdims=True) for counts in (one, other))
        middle = (p + q) / 2
        parts = [np.where(side > 0, side * np.log2(side / middle), 0.0).sum(axis=-1) for side in (p, q)]
        found = np.sqrt(np.clip((parts[0] + parts[1]) / 2, 0, 1))
    return np.where((one.sum(axis=-1) > 0) & (other.sum(axis=-1) > 0), found, 1.0)


def _histograms(rows: Floats, edges: Sequence[Floats], width: int) -> Floats:
    return np.stack(
        [np.bincount(_bins(rows[:, n], some, width), minlength=width) for n, some in enumerate(edges)]
    ).astype(np.float64)


def _bins(values: Floats, edges: Floats, width: int) -> Ints:
    """The bin of each value; missing ones have the last."""
    return np.where(np.isnan(values), width - 1, np.searchsorted(edges, values, side="right"))


def _farther(today: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """(distance, usual largest) of values or of missing values, whichever is the nearer to paging, (features,) each."""
    apart = [np.stack([counts[..., :-1].sum(axis=-1), counts[..., -1]], axis=-1) for counts in (today, reference)]
    far, usual = _judged(today, reference)
    far_missing, usual_missing = _judged(*apart)
    rule = SharpRule()
    missing = far_missing / sharp_threshold(usual_missing, rule) > far / sharp_threshold(usual, rule)
    return np.where(missing, far_missing, far), np.where(missing, usual_missing, usual)


def _judged(today: Floats, reference: Floats) -> tuple[Floats, Floats]:
    total = reference.sum(axis=1)
    return js_distances(today, total), js_distances(reference, total[:, None] - reference).max(axis=1)
