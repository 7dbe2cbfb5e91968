"""The point-in-time join on plain frames: for each asked key and moment the newest row that was known by then.

Key and time of the feature rows are packed into one integer, sorted once, and every question is a binary search. Where
they do not fit into one, each key's rows are halved instead: as fast as ``join_asof``, with no need to sort the asked.
Times are counted in microseconds; finer ones are rounded so that nothing is seen before it happened.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from ml_platform.features.aggregates import Ints
from ml_platform.features.key_codes import KeyCodes
from ml_platform.features.key_time import Halved, Packed, keyed
from ml_platform.features.timeline import microseconds
from ml_platform.spec import StateError

CHUNK = 2**18  # questions answered at a time: what is sorted fits into a core's cache
_NEVER = np.iinfo(np.int64).min


def newest_known(
    asked: pl.DataFrame,
    rows: pl.DataFrame,
    *,
    keys: Sequence[str],
    at: str,
    event: str,
    known: str | None = None,
    only_known: bool = True,
    ttl: timedelta | None = None,
) -> pl.Series:
    """For each asked row the number (UInt32) of the feature row to use, null where there is none.

    That is the row of the same key with the greatest ``event`` at or before ``at``; of several the one with the
    greatest ``known``, then the last in order. A key that is null in any part matches nothing.

    asked: ``keys`` and the moment ``at``. rows: ``keys``, ``event`` and ``known``. Naive times are UTC.
    known: column that says since when a row was known; None: with its event.
    only_known: whether a row that became known after ``at`` is out of sight (and one whose ``known`` is null always).
    ttl: a row whose event lies further back than this is no answer, nor is an older one; None: no row expires.

    Raises:
        StateError: a key or a time is of a type that cannot be compared.
    """
    timeline = Timeline.of(rows, keys=keys, event=event, known=known, only_known=only_known)
    questions = asked.select(*keys, at)
    # Sorting and searching let go of Python's lock, so threads share the cores.
    with ThreadPoolExecutor(pl.thread_pool_size()) as threads:
        found = list(threads.map(lambda part: timeline.find(part, at=at, ttl=ttl), questions.iter_slices(CHUNK)))
    return pl.concat(found) if found else pl.Series(dtype=pl.UInt32)


def newest(rows: pl.DataFrame, *, keys: Sequence[str], event: str, known: str | None = None) -> pl.Series:
    """The number (UInt32) of each key's newest row: greatest ``event``, then ``known``, then the last in order.

    Rows whose key or event is null are left out. Raises as ``newest_known`` does.
    """
    timeline = Timeline.of(rows, keys=keys, event=event, known=known, only_known=False)
    return pl.Series(timeline.newest[timeline.rows.last_of_keys()])


@dataclass(frozen=True)
class Timeline:
    """Feature rows in the order of key and time from which on they may be used.

    ``newest[n]``: number of the row that answers from the n-th on; ``events``: of all rows, in microseconds.
    """

    keys: KeyCodes
    rows: Packed | Halved
    newest: Ints
    events: Ints

    @classmethod
    def of(
        cls, rows: pl.DataFrame, *, keys: Sequence[str], event: str, known: str | None = None, only_known: bool = True
    ) -> "Timeline":
        """Sort the rows; arguments as for ``newest_known``."""
        numbering, codes = KeyCodes.of(rows, keys)
        events = moments_of(rows[event], late=True)
        usable = (codes >= 0) & rows[event].is_not_null().to_numpy()
        if known is None:
            knowns = None
            seen = events
        else:
            knowns = moments_of(rows[known], late=True)
            seen = np.maximum(events, knowns) if only_known else events
            if only_known:
                usable &= rows[known].is_not_null().to_numpy()
        kept = np.flatnonzero(usable)
        codes, seen = codes[kept], seen[kept]
        by_time, steps = keyed(codes, seen, numbering.width)
        order = _order(by_time, None if knowns is None else knowns[kept])
        newest = order
        if knowns is not None and only_known:
            aged, _ = keyed(codes, events[kept], numbering.width)
            newest = order[_leading(aged[order])]
        sorted_rows = Packed(steps, by_time[order]) if steps else Halved.of(codes[order], seen[order])
        return cls(numbering, sorted_rows, kept[newest].astype(np.uint32), events)

    def find(self, asked: pl.DataFrame, *, at: str, ttl: timedelta | None = None) -> pl.Series:
        """Answers to some questions; arguments as for ``newest_known``."""
        moments = moments_of(asked[at], late=False)
        place = self.rows.find(self.keys.codes(asked), moments)
        reached = (place >= 0) & asked[at].is_not_null().to_numpy()
        if not len(self.newest):
            return pl.Series([None] * asked.height, dtype=pl.UInt32)
        found = self.newest[np.maximum(place, 0)]
        if ttl is not None:
            reached &= self.events[found] >= moments - microseconds(ttl)
        return pl.Series(found).set(~pl.Series(reached), None)


def _order(keyed: Ints, knowns: Ints | None) -> Ints:
    """By key and time, ties by what became known later, then by row."""
    order = _sorted(keyed)
    if knowns is not None:
        tied = keyed[order[1:]] == keyed[order[:-1]]
        if (tied & (knowns[order[1:]] < knowns[order[:-1]])).any():
            order = _sorted(knowns)
            order = order[_sorted(keyed[order])]
    return order


def _sorted(numbers: Ints) -> Ints:
    """Stable, and on all cores."""
    numbered = pl.DataFrame({"number": numbers, "row": np.arange(len(numbers), dtype=np.uint32)})
    return numbered.sort("number", maintain_order=True)["row"].to_numpy()


def _leading(aged: Ints) -> Ints:
    """For each place the last one up to there that holds the greatest age: a correction of an older event is skipped.

    aged: key and event packed, so that whatever stands under a later key is greater than all before. Rows of one event
    stand in the order in which they became known.
    """
    places = np.where(aged == np.maximum.accumulate(aged), np.arange(len(aged)), 0)
    return np.maximum.accumulate(places)


def moments_of(times: pl.Series, *, late: bool) -> Ints:
    """Microseconds since 1970 in UTC (a naive time is UTC); finer times rounded up if ``late``, else down.

    A null becomes the earliest moment there is.

    Raises:
        StateError: the column holds no times.
    """
    if times.dtype == pl.Date:
        times = times.cast(pl.Datetime("us"))
    if not isinstance(times.dtype, pl.Datetime):
        raise StateError(f"the column {times.name} is {times.dtype} where a time is needed; convert it first")
    counted = times.to_physical().fill_null(_NEVER).to_numpy()
    if times.dtype.time_unit == "ns":
        return np.where(counted == _NEVER, _NEVER, -(-counted // 1000) if late else counted // 1000)
    return np.where(counted == _NEVER, _NEVER, counted * 1000) if times.dtype.time_unit == "ms" else counted
