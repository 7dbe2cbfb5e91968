"""Profiles: what a partition's column holds, in half a kilobyte that adds up.

A profile counts a column's values in the bins of a `Layout`, which is fixed per column by a reference (see
`layouts.py`), so the profile of any set of days is the sum of the days' profiles, and exactly the one that counting all
their rows would give: counts, missing values, infinities, zeros, least and greatest value. Mean and sum of squares are
combined as by Chan, Golub & LeVeque (1979), equal up to rounding. Text is counted by its 32 most frequent values and,
beyond those, in 32 buckets, both by a hash (CRC-32): the same for ever, and a profile names nobody.

Numbers are sorted in runs short enough to stay in the processor's cache; the edges are looked up in each run. That is
half the work of looking each value up among the edges, and a sixteenth of what sorting for an exact comparison takes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import KNOWN_AT, PlatformError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["number", "category", "other"]
BUCKETS = 32  # for text that is not among the most frequent
_RUN = 2048  # 16 kB of numbers: sorted in the first-level cache
_BLOCK = 32 * _RUN  # rows in work at a time, so that memory stays that of the frame
_HOUR_MS = 3_600_000
_NUMBERS = np.array([], dtype=np.float64)
_HASHES = np.array([], dtype=np.int64)
# Where, in a sorted run, negative infinities end, zeros begin and end, positive infinities begin and missing ones.
_MARKS = np.array([np.finfo(np.float64).min, 0.0, 5e-324, np.inf, np.nan])


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Where a column's values are counted.

    edges: ascending; bin n holds what is at least edge n - 1 and below edge n, so the first and the last one hold what
        lies outside all that the layout was learned from. categories: hashes, the most frequent value first.
    version: counts up each time the column's layout is learned anew.
    learned_days: on how many days the values lay that it was learned from.
    """

    column: str
    kind: Kind
    edges: Floats = field(default_factory=lambda: _NUMBERS)
    categories: Ints = field(default_factory=lambda: _HASHES)
    version: int = 1
    learned_days: int = 1

    @property
    def bins(self) -> int:
        """How many counts a profile has."""
        return {"number": len(self.edges) + 1, "category": len(self.categories) + BUCKETS, "other": 0}[self.kind]

    @property
    def single(self) -> NDArray[np.bool_]:
        """Which bins can hold one value only."""
        if self.kind != "number":
            return np.zeros(self.bins, dtype=bool)
        narrow = self.edges[1:] <= np.nextafter(self.edges[:-1], np.inf)
        return np.concatenate([[False], narrow, [False]])[: self.bins]

    def same_as(self, other: "Layout") -> bool:
        """Whether counts of the one may be added to counts of the other."""
        return (
            (self.column, self.kind) == (other.column, other.kind)
            and np.array_equal(self.edges, other.edges)
            and np.array_equal(self.categories, other.categories)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnProfile:
    """What a column holds: ``rows`` = ``missing`` + ``below`` + ``above`` + the sum of ``counts``, unless its kind is
    *other* (a list, say), of which only rows and missing ones are counted.

    missing: null or not a number. below, above: negative and positive infinities. zeros: also among the counts; of
    text the empty ones. minimum, maximum, mean, m2 (sum of squared differences from the mean): of the finite numbers.
    """

    layout: Layout
    rows: int
    missing: int
    counts: Ints
    below: int = 0
    above: int = 0
    zeros: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    mean: float = 0.0
    m2: float = 0.0

    @property
    def column(self) -> str:
        """Its name."""
        return self.layout.column

    @property
    def finite(self) -> int:
        """How many values are neither missing nor infinite."""
        return int(self.counts.sum())

    @property
    def deviation(self) -> float:
        """Standard deviation of the finite numbers (0 where there are none)."""
        return float(np.sqrt(self.m2 / self.finite)) if self.finite else 0.0

    def __add__(self, other: "ColumnProfile") -> "ColumnProfile":
        """The profile of both sets of rows together.

        Raises:
            PlatformError: they were counted in different bins.
        """
        if not self.layout.same_as(other.layout):
            raise PlatformError(
                f"profiles of {self.column} (version {self.layout.version}) and of {other.column} (version "
                f"{other.layout.version}) were counted in different bins and cannot be added; materialize the "
                f"profiles of these days again"
            )
        mean, m2 = _combined(self, other)
        return ColumnProfile(
            layout=self.layout,
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            counts=self.counts + other.counts,
            below=self.below + other.below,
            above=self.above + other.above,
            zeros=self.zeros + other.zeros,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            mean=mean,
            m2=m2,
        )


def merge(profiles: Sequence[ColumnProfile]) -> ColumnProfile:
    """The profile of all rows together; of one column, at least one profile.

    Raises:
        PlatformError: they were counted in different bins.
    """
    return reduce(lambda one, other: one + other, profiles)


def profile(frame: pl.DataFrame, layouts: Sequence[Layout]) -> list[ColumnProfile]:
    """One profile for each layout whose column is there, in their order; one of another kind by now is all missing.

    Times are counted as hours before the row's ``known_at`` (see `as_counted`).
    """
    return [_profile(frame, layout) for layout in layouts if layout.column in frame.columns]


def kind_of(dtype: pl.DataType) -> Kind:
    """How values of this type are counted."""
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "category"
    counted = dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.Boolean, pl.Null)
    return "number" if counted else "other"


def as_counted(frame: pl.DataFrame, column: str) -> pl.Series:
    """The column as it is counted: text as it is, what tells a time as hours, anything else as numbers.

    A moment is counted as the hours that it lies before the row's ``known_at``, which a shifted clock moves whatever
    the date; ``known_at`` itself, and every moment of a frame without one, as the hour of its day in its own timezone.
    """
    values = frame[column]
    if kind_of(values.dtype) == "category":
        return values
    if values.dtype in (pl.Date, pl.Datetime):
        moments = values.cast(pl.Datetime("ms")) if values.dtype == pl.Date else values
        known = frame.get_column(KNOWN_AT, default=None)
        if known is None or column == KNOWN_AT or not isinstance(known.dtype, pl.Datetime):
            return (moments.dt.hour() + moments.dt.minute() / 60).cast(pl.Float64)
        behind: pl.Series = (known.dt.epoch("ms") - moments.dt.epoch("ms")) / _HOUR_MS
        return behind
    if isinstance(values.dtype, pl.Duration):
        return values.dt.total_milliseconds() / _HOUR_MS
    if values.dtype == pl.Float64 or kind_of(values.dtype) != "number":
        return values
    return values.to_physical().cast(pl.Float64)


def hashed(texts: Sequence[str]) -> Ints:
    """CRC-32 of each text: the same in every process and version, as Polars' own hash is not."""
    return np.fromiter((crc32(text.encode()) for text in texts), dtype=np.int64, count=len(texts))


def _profile(frame: pl.DataFrame, layout: Layout) -> ColumnProfile:
    nothing = np.zeros(layout.bins, dtype=np.int64)
    if kind_of(frame[layout.column].dtype) != layout.kind:
        return ColumnProfile(layout=layout, rows=frame.height, missing=frame.height, counts=nothing)
    values = as_counted(frame, layout.column)
    if layout.kind == "other":
        return ColumnProfile(layout=layout, rows=frame.height, missing=values.null_count(), counts=nothing)
    count = _count_numbers if layout.kind == "number" else _count_texts
    if len(values) <= _BLOCK:
        return count(values, layout)
    blocks = (values.slice(start, _BLOCK) for start in range(0, len(values), _BLOCK))
    return reduce(ColumnProfile.__add__, (count(block, layout) for block in blocks))


def _count_numbers(values: pl.Series, layout: Layout) -> ColumnProfile:
    numbers = values.to_numpy()
    probes = np.concatenate([_MARKS, layout.edges])
    below = np.sum([run.searchsorted(probes) for run in _sorted_runs(numbers)], axis=0)
    infinite_below, zeros_begin, zeros_end, infinite_from, missing_from = (int(n) for n in below[: len(_MARKS)])
    missing, infinite_above = len(numbers) - missing_from, missing_from - infinite_from
    finite = numbers[np.isfinite(numbers)] if missing or infinite_above or infinite_below else numbers
    with np.errstate(over="ignore", invalid="ignore"):  # values near the greatest number have no finite square
        mean = float(finite.mean()) if len(finite) else 0.0
        apart = finite - mean
        m2 = float(apart @ apart)
    return ColumnProfile(
        layout=layout,
        rows=len(numbers),
        missing=missing,
        counts=np.diff(below[len(_MARKS) :], prepend=infinite_below, append=infinite_from),
        below=infinite_below,
        above=infinite_above,
        zeros=zeros_end - zeros_begin,
        minimum=float(finite.min(initial=np.inf)),
        maximum=float(finite.max(initial=-np.inf)),
        mean=mean,
        m2=m2,
    )


def _sorted_runs(numbers: Floats) -> Iterator[Floats]:
    whole = len(numbers) - len(numbers) % _RUN
    yield from np.sort(numbers[:whole].reshape(-1, _RUN), axis=1)
    yield np.sort(numbers[whole:])


def _count_texts(values: pl.Series, layout: Layout) -> ColumnProfile:
    texts = values.cast(pl.String).drop_nulls().value_counts(name="times")
    hashes, times = hashed(texts[:, 0].to_list()), texts["times"].to_numpy().astype(np.int64)
    order = np.argsort(layout.categories)
    places = np.searchsorted(layout.categories, hashes, sorter=order)
    places = order[np.minimum(places, len(order) - 1)] if len(order) else np.zeros(len(hashes), dtype=np.int64)
    frequent = layout.categories[places] == hashes if len(order) else np.zeros(len(hashes), dtype=bool)
    bins = np.where(frequent, places, len(order) + hashes % BUCKETS)
    counts = np.bincount(bins, weights=times, minlength=layout.bins).astype(np.int64)
    empty = int(texts.filter(pl.nth(0) == "")["times"].sum())
    return ColumnProfile(layout=layout, rows=len(values), missing=values.null_count(), counts=counts, zeros=empty)


def _combined(one: ColumnProfile, other: ColumnProfile) -> tuple[float, float]:
    """Mean and sum of squared differences of both together."""
    n, m = one.finite, other.finite
    if not n or not m:
        return (one.mean, one.m2) if n else (other.mean, other.m2)
    with np.errstate(over="ignore", invalid="ignore"):  # as above
        apart = np.float64(other.mean) - one.mean
        return float(one.mean + apart * m / (n + m)), float(one.m2 + other.m2 + apart * apart * n * m / (n + m))
