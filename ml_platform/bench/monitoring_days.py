"""Days of rows as histograms, each compared with its season: what the assets do, outside of Dagster."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ml_platform.monitoring.distances import joined, joins, js_distance
from ml_platform.monitoring.layouts import edges
from ml_platform.monitoring.profile import Layout
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
        layouts, counts = self._counted(place - place % _RELEARN if place >= _RELEARN else place)
        today = _histograms(self.rows(place) if rows is None else rows, layouts)
        places = [(day - self.first).days for day in found.days]
        judged = [
            _farther(one, every[places], layout) for one, every, layout in zip(today, counts, layouts, strict=True)
        ]
        far, usual = np.array(judged).T
        return Compared(day=self.date(place), features=self.names, distances=far, usual=usual)

    def _count(self, learned: int) -> tuple[list[Layout], list[Floats]]:
        """Layouts as learned at a place, and each feature's counts of all days by them, (days, bins + 1)."""
        known = self.rows(max(0, learned - _LEARN_FROM), learned)
        layouts = [
            Layout(column=name, kind="number", edges=edges(column))
            for name, column in zip(self.names, known.T, strict=True)
        ]
        counts = []
        for n, layout in enumerate(layouts):
            width = layout.bins + 1
            places = self.place * width + _bins(self.values[:, n], layout)
            counts.append(np.bincount(places, minlength=len(self) * width).reshape(len(self), width).astype(np.float64))
        return layouts, counts


def _histograms(rows: Floats, layouts: Sequence[Layout]) -> list[Floats]:
    return [
        np.bincount(_bins(rows[:, n], layout), minlength=layout.bins + 1).astype(np.float64)
        for n, layout in enumerate(layouts)
    ]


def _bins(values: Floats, layout: Layout) -> Ints:
    """The bin of each value; missing ones have one behind the layout's."""
    return np.where(np.isnan(values), layout.bins, np.searchsorted(layout.edges, values, side="right"))


def _farther(today: Floats, reference: Floats, layout: Layout) -> tuple[float, float]:
    """(distance, usual largest) of values or of missing values, whichever is the nearer to paging."""
    groups = joins(reference.sum(axis=0)[:-1].astype(np.int64), layout)
    values = _judged(*(joined(counts, groups) for counts in (today[None], reference)))
    missing = _judged(*(np.stack([c[:, :-1].sum(axis=1), c[:, -1]], axis=1) for c in (today[None], reference)))
    rule = SharpRule()
    return max(values, missing, key=lambda pair: pair[0] / float(sharp_threshold(pair[1], rule)))


def _judged(today: Floats, reference: Floats) -> tuple[float, float]:
    total = reference.sum(axis=0)
    return float(js_distance(today[0], total)), float(js_distance(reference, total - reference).max())
