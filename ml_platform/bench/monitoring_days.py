"""Days of rows as histograms, each compared with its season: what the assets do, outside of Dagster."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ml_platform.monitoring.distances import joins, js_distance
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
        """How many days, those without rows included."""
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
        today = _counts(self.rows(place) if rows is None else rows, layouts, counts.shape[-1])
        reference = counts[:, [(day - self.first).days for day in found.days]]
        far, usual = _farther(today[:, None], reference, layouts)
        return Compared(day=self.date(place), features=self.names, distances=far, usual=usual)

    def _count(self, learned: int) -> tuple[list[Layout], Floats]:
        """Layouts as learned at a place, and the counts of all days by them, (features, days, bins and missing)."""
        known = self.rows(max(0, learned - _LEARN_FROM), learned)
        layouts = [
            Layout(column=name, kind="number", edges=edges(column))
            for name, column in zip(self.names, known.T, strict=True)
        ]
        width = max(layout.bins for layout in layouts) + 1
        counts = np.empty((len(layouts), len(self), width))
        for n, layout in enumerate(layouts):
            places = self.place * width + _bins(self.values[:, n], layout, width)
            counts[n] = np.bincount(places, minlength=len(self) * width).reshape(len(self), width)
        return layouts, counts


def _counts(rows: Floats, layouts: Sequence[Layout], width: int) -> Floats:
    return np.stack(
        [np.bincount(_bins(rows[:, n], layout, width), minlength=width) for n, layout in enumerate(layouts)]
    ).astype(np.float64)


def _bins(values: Floats, layout: Layout, width: int) -> Ints:
    """The bin of each value; missing ones have the last."""
    return np.where(np.isnan(values), width - 1, np.searchsorted(layout.edges, values, side="right"))


def _farther(today: Floats, reference: Floats, layouts: Sequence[Layout]) -> tuple[Floats, Floats]:
    """(distance, usual largest) of values or of missing values, whichever is the nearer to paging, (features,) each."""
    into = _joins(reference.sum(axis=1)[:, :-1].astype(np.int64), layouts)
    values = _judged(*(np.concatenate([c[..., :-1] @ into, c[..., -1:]], axis=-1) for c in (today, reference)))
    missing = _judged(*(np.stack([c[..., :-1].sum(axis=-1), c[..., -1]], axis=-1) for c in (today, reference)))
    nearer = [far / sharp_threshold(usual, SharpRule()) for far, usual in (values, missing)]
    far, usual = (np.where(nearer[1] > nearer[0], *pair) for pair in zip(missing, values, strict=True))
    return far, usual


def _joins(total: Ints, layouts: Sequence[Layout]) -> Floats:
    """Which bins are joined, as matrices of zeros and ones, (features, bins, joined bins)."""
    groups = [joins(counts[: layout.bins], layout) for counts, layout in zip(total, layouts, strict=True)]
    into = np.zeros((*total.shape, max(int(some.max(initial=0)) for some in groups) + 1))
    for n, some in enumerate(groups):
        into[n, np.arange(len(some)), some] = 1
    return into


def _judged(today: Floats, reference: Floats) -> tuple[Floats, Floats]:
    total = reference.sum(axis=1, keepdims=True)
    return js_distance(today, total)[:, 0], js_distance(reference, total - reference).max(axis=1)
