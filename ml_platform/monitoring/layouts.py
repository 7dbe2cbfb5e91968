"""Layouts: the bins that a column's values are counted in, learned from a reference and kept until they fit no more.

Numbers: the edges of 64 bins that hold equally many rows each, a bin of its own for a value that many rows share, and
two outer bins for what lies far outside (more than half the reference's range). Text: the 32 most frequent values.

Edges are learned on the first day, and anew when there are twice as many days as they were learned from, until two
months are known. After that they are learned anew when the values of the last four weeks have crowded into few bins,
and there are half as many days again. Each time the version counts up and every kept day is counted again, so that any
window adds up exactly; since the days must have grown by a part, that is less work than counting each day three times.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ml_platform.monitoring.profile import ColumnProfile, Floats, Layout, as_counted, hashed, kind_of

BINS = 64
CATEGORIES = 32
ENOUGH_DAYS = 56
RELEARN_DAYS = 28  # between two learnings because values crowd, at least
_CROWDED = 16 / BINS  # of all values, in one bin that is no single value: too much to see a shift within it
_SLACK = 0.5  # of the reference's range: a season's first warm day is no change of unit
MOST_ROWS = 1_000_000  # quantiles of more are no better; evenly spread over the reference


def learn(reference: pl.DataFrame, *, days: int, version: int = 1, leaving_out: Sequence[str] = ()) -> list[Layout]:
    """A layout for each column of the reference (a row a row of the table, of ``days`` days)."""
    rows = reference.gather_every(max(1, -(-reference.height // MOST_ROWS)))
    columns = [name for name in rows.columns if name not in leaving_out]
    return [_layout(rows, name, days, version) for name in columns]


def _layout(rows: pl.DataFrame, column: str, days: int, version: int) -> Layout:
    kind, values = kind_of(rows[column].dtype), as_counted(rows, column)
    if kind == "number":
        return Layout(column=column, kind=kind, edges=edges(values.to_numpy()), version=version, learned_days=days)
    if kind == "category":
        texts = (
            values.cast(pl.String).drop_nulls().value_counts(name="times").sort("times", values.name, descending=True)
        )
        found = hashed(texts[:CATEGORIES, 0].to_list())
        _, first = np.unique(found, return_index=True)
        return Layout(column=column, kind=kind, categories=found[np.sort(first)], version=version, learned_days=days)
    return Layout(column=column, kind=kind, version=version, learned_days=days)


def edges(values: Floats) -> Floats:
    """Ascending edges; none where there is no finite value."""
    finite = np.sort(values[np.isfinite(values)])
    if finite.size == 0:
        return np.array([], dtype=np.float64)
    inner = np.unique(finite[np.ceil(np.arange(1, BINS) / BINS * finite.size).astype(np.int64) - 1])
    shared = finite.searchsorted(inner, side="right") - finite.searchsorted(inner)
    own = inner[shared >= max(2, finite.size / (4 * BINS))]
    with np.errstate(over="ignore"):  # the range of values near the greatest number has no bound
        slack = _SLACK * (finite[-1] - finite[0])
        outer = np.array([finite[0] - slack, np.nextafter(finite[-1] + slack, np.inf)])
    found = np.unique(np.concatenate([inner, np.nextafter(own, np.inf), outer]))
    bounded: Floats = found[np.isfinite(found)]
    return bounded


def are_due(layouts: Sequence[Layout], days: int, lately: Sequence[ColumnProfile]) -> str | None:
    """Why the layouts have to be learned anew, or ``None``.

    days: how many are known now. lately: the sums of the last four weeks, asked for where `may_crowd`.
    """
    if not layouts:
        return "there are none yet"
    learned = min(layout.learned_days for layout in layouts)
    if learned < ENOUGH_DAYS and days >= 2 * learned:
        return f"they were learned from {learned} of {days} days"
    crowded = [found.column for found in lately if may_crowd(layouts, days) and is_crowded(found)]
    return f"values crowd in few bins of {', '.join(crowded[:3])}" if crowded else None


def may_crowd(layouts: Sequence[Layout], days: int) -> bool:
    """Whether there are so many days more that learning anew because values crowd is worth it."""
    learned = min((layout.learned_days for layout in layouts), default=0)
    return days - learned >= max(RELEARN_DAYS, learned / 2)


def is_crowded(found: ColumnProfile) -> bool:
    """Whether one bin that is no single value holds a quarter of all; then it tells too little."""
    if found.layout.kind != "number" or not found.finite:
        return False
    return bool(np.any(found.counts[~found.layout.single] > _CROWDED * found.finite))
