"""Events of many entities in one sorted array, and questions answered on it by binary search."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.features.aggregates import Ints

Mask = NDArray[np.bool_]


def microseconds(span: timedelta) -> int:
    """A duration in whole microseconds."""
    return span // timedelta(microseconds=1)


@dataclass(frozen=True)
class Timeline:
    """Sorted by entity, then time: ``keys`` holds the entity's code above and the time below."""

    keys: Ints
    codes: Ints

    def where(self, kept: Mask) -> "Timeline":
        """The entries of the mask alone."""
        return Timeline(self.keys[kept], self.codes[kept])


@dataclass(frozen=True)
class Asked:
    """Questions (entity code, time in unix microseconds) and the time range that keys are packed for."""

    codes: Ints
    times: Ints
    origin: int
    span: int

    @classmethod
    def of(cls, codes: pl.Series, moments: pl.Series, event_times: pl.Series, lookback: timedelta) -> "Asked":
        """Pack for all questions, their windows' lower edges and all events."""
        times = moments.dt.epoch("us").to_numpy().astype(np.int64)
        both = np.concatenate([event_times.to_numpy(), times, times - microseconds(lookback)])
        origin = int(both.min(initial=2**62))
        span = int(both.max(initial=origin)) - origin + 2
        return cls(codes.cast(pl.Int64).to_numpy(), times, origin, span)

    def timeline(self, codes: pl.Series, times: pl.Series) -> Timeline:
        """Events already sorted by entity and time, packed."""
        coded = codes.cast(pl.Int64).to_numpy()
        return Timeline(coded * self.span + (times.to_numpy() - self.origin), coded)

    def upper(self, timeline: Timeline, before: timedelta = timedelta(0)) -> Ints:
        """For each question the end of its entity's entries at or before (time - ``before``)."""
        shifted = np.clip(self.times - microseconds(before) - self.origin, -1, self.span - 1)
        return np.searchsorted(timeline.keys, self.codes * self.span + shifted, side="right")

    def first(self, timeline: Timeline) -> Ints:
        """For each question the start of its entity's entries."""
        return np.searchsorted(timeline.codes, self.codes, side="left")

    def count_up_to(self, timeline: Timeline, moments: Ints) -> Ints:
        """For each question how many of its entity's ``moments`` (one an entry) lie at or before its time."""
        bounded = np.clip(moments - self.origin, 0, self.span - 1)
        own = Timeline(np.sort(timeline.codes * self.span + bounded), timeline.codes)
        return self.upper(own) - self.first(own)
