"""Events of many entities in one sorted array, and questions answered on it by binary search."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.features.aggregates import Ints
from ml_platform.spec import PlatformError

Mask = NDArray[np.bool_]
_COPIES = 1 << 22  # entries that are copied at once: tens of megabytes


def microseconds(span: timedelta) -> int:
    """A duration in whole microseconds."""
    return span // timedelta(microseconds=1)


@dataclass(frozen=True)
class Timeline:
    """Sorted by entity, then time: ``keys`` holds the entity's code above and the time below, of ``span`` steps."""

    keys: Ints
    span: int

    @cached_property
    def codes(self) -> Ints:
        """The entity's code of each entry; windows do without."""
        return self.keys // self.span

    def where(self, kept: Mask) -> "Timeline":
        """The entries of the mask alone."""
        if kept.all():
            return self
        return Timeline(self.keys[kept], self.span)


@dataclass(frozen=True)
class Asked:
    """Questions (entity code, time) and how an entity and a time are packed into one integer.

    Times are counted in ``unit``: the largest step that all questions and all window edges stand on. An event between
    two steps belongs to the later one, from which on it is seen; so nothing is rounded away, and the packed range is
    small.
    """

    codes: Ints
    steps: Ints
    origin: int
    unit: int
    span: int

    @classmethod
    def of(cls, codes: Ints, moments: pl.Series, event_times: pl.Series, spans: Iterable[timedelta]) -> "Asked":
        """Pack for all questions, their windows' lower edges and all events.

        Raises:
            PlatformError: entities times range do not fit into 64 bits.
        """
        times = moments.dt.epoch("us").to_numpy().astype(np.int64)
        windows = [microseconds(span) for span in spans]
        unit = int(np.gcd.reduce(np.append(times, windows or [0]).astype(np.int64))) or 1
        first = min(
            int(event_times.to_numpy().min(initial=2**62)), int(times.min(initial=2**62)) - max(windows, default=0)
        )
        last = max(int(event_times.to_numpy().max(initial=-(2**62))), int(times.max(initial=-(2**62))))
        origin = first // unit * unit
        span = max(-(-(last - origin) // unit) + 2, 2)
        asked = cls(codes, (times - origin) // unit, origin, unit, span)
        entities = int(codes.max(initial=0)) + 1
        if entities * span > 2**62:
            raise PlatformError(
                f"{entities} entities over {span} steps do not fit into one computation; compute shorter ranges of days"
            )
        return asked

    def in_order(self) -> tuple["Asked", Ints]:
        """The questions by entity and time, and the place of each among those given.

        Searched in this order, neighbours are found beside each other: ten times as fast as back and forth.
        """
        order = np.argsort(self.codes * self.span + self.steps)
        return replace(self, codes=self.codes[order], steps=self.steps[order]), order

    def keys(self, codes: Ints, times: pl.Series) -> Ints:
        """Events packed: sorted by this, they are sorted by entity and by the step from which they are seen."""
        packed = self._step_of(times.to_numpy())  # all events lie within the span
        packed += np.multiply(codes, self.span, dtype=np.int64)
        return packed

    def timeline(self, keys: Ints) -> Timeline:
        """Events whose keys are sorted."""
        return Timeline(keys, self.span)

    def _seen_from(self, moments: Ints) -> Ints:
        return np.clip(self._step_of(moments), 0, self.span - 1)

    def _step_of(self, moments: Ints) -> Ints:
        # In place: on millions of events a fresh array costs more than the arithmetic.
        steps: Ints = self.origin - moments
        np.floor_divide(steps, self.unit, out=steps)
        return np.negative(steps, out=steps)

    def upper(self, timeline: Timeline, before: timedelta = timedelta(0)) -> Ints:
        """For each question the end of its entity's entries at or before (time - ``before``)."""
        steps = np.clip(self.steps - microseconds(before) // self.unit, -1, self.span - 1)
        return np.searchsorted(timeline.keys, self.codes * self.span + steps, side="right")

    def first(self, timeline: Timeline) -> Ints:
        """For each question the start of its entity's entries."""
        entities = int(self.codes.max(initial=-1)) + 1
        if entities > len(self.codes):
            return np.searchsorted(timeline.keys, self.codes * self.span, side="left")
        starts: Ints = np.searchsorted(timeline.keys, np.arange(entities) * self.span, side="left")
        return starts[self.codes]  # an entity is mostly asked about more than once

    def skipping_ended(self, upper: Ints, first: Ints, ends: Ints) -> Ints:
        """For each question ``upper`` (an end of entries), without the entries before it that had ended by its time.

        ends: for each entry from when on it does not count, unix microseconds.
        """
        seen, found = self._seen_from(ends), upper.copy()
        left = np.flatnonzero(found > first)
        while len(left):
            left = left[seen[found[left] - 1] <= self.steps[left]]
            found[left] -= 1
            left = left[found[left] > first[left]]
        return found

    def count_up_to(self, timeline: Timeline, moments: Ints) -> Ints:
        """For each question how many of its entity's ``moments`` (one an entry) lie at or before its time."""
        own = Timeline(np.sort(timeline.codes * self.span + self._seen_from(moments)), self.span)
        return self.upper(own) - self.first(own)


def held_at(
    asked: Asked, timeline: Timeline, ends: pl.Series, reach: timedelta
) -> Iterator[tuple[Ints, Asked, Ints, Timeline]]:
    """For questions that have an entry with an end within ``reach`` before them: the entries that had not ended yet.

    Between two ends of an entity the same entries count, so its questions are answered together on a copy of the
    entries that they reach, under a code of its own. Yields (which questions, they as asked of the copies, places of
    the copied entries, the copies' timeline), with a bounded number of copies a time.

    ends: for each entry from when on it does not count, unix microseconds; null for good.
    """
    ending = ends.is_not_null().to_numpy()
    corrected = timeline.where(ending)
    among = np.flatnonzero(
        asked.upper(corrected) > np.maximum(asked.upper(corrected, before=reach), asked.first(corrected))
    )
    if len(among) == 0:
        return
    ended = asked.count_up_to(corrected, ends.drop_nulls().to_numpy())[among]
    order = np.lexsort([asked.steps[among], ended, asked.codes[among]])
    among, ended = among[order], ended[order]
    codes, steps = asked.codes[among], asked.steps[among]
    begins = np.flatnonzero(np.append(True, (np.diff(codes) != 0) | (np.diff(ended) != 0)))
    group = np.cumsum(np.isin(np.arange(len(among)), begins)) - 1
    earliest, latest = np.minimum.reduceat(steps, begins), np.maximum.reduceat(steps, begins)
    base = codes[begins] * asked.span
    oldest = np.maximum(earliest - microseconds(reach) // asked.unit, -1)
    lower = np.searchsorted(timeline.keys, base + oldest, side="right")
    upper = np.searchsorted(timeline.keys, base + latest, side="right")
    seen_until = asked._seen_from(ends.fill_null(2**61).to_numpy())
    for first, last in _chunks(upper - lower, 2**62 // asked.span):
        sizes = (upper - lower)[first:last]
        own = np.repeat(np.arange(last - first), sizes)
        places = np.arange(len(own)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(lower[first:last], sizes)
        counting = seen_until[places] > earliest[first:last][own]
        own, places = own[counting], places[counting]
        copies = asked.timeline(own * asked.span + timeline.keys[places] - timeline.codes[places] * asked.span)
        chosen = (group >= first) & (group < last)
        part = Asked(group[chosen] - first, steps[chosen], asked.origin, asked.unit, asked.span)
        yield among[chosen], part, places, copies


def _chunks(sizes: Ints, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of consecutive groups: at most ``most`` of them, and few copies, but at least one group each."""
    first = copies = 0
    for n, size in enumerate(sizes.tolist()):
        if n > first and (copies + size > _COPIES or n - first >= most):
            yield first, n
            first, copies = n, 0
        copies += size
    yield first, len(sizes)
