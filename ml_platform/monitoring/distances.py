"""How far two profiles of a column are apart: Kolmogorov-Smirnov, PSI, Jensen-Shannon and Wasserstein.

All are computed from the counts alone. Kolmogorov-Smirnov's and Wasserstein's distances are of the order of values, so
they have no meaning for text; they are read off the fine bins. PSI (Siddiqi 2006) and Jensen-Shannon's distance (Lin
1991; the square root, base 2) compare shares, so they are read off bins that are joined until each holds a tenth of the
reference: with many thin bins a day of a thousand rows would be far from anything by chance alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml_platform.monitoring.profile import ColumnProfile, Floats, Ints, Layout

JOINED = 10  # bins that are compared by share hold at least this part of the reference
_TINY = 1e-300  # added to a share it changes nothing, unless that is zero and has no logarithm
_FLOOR = 1e-4  # PSI has no value where a share is zero; the usual smallest share


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Between two profiles of a column; ``None`` where there is nothing to compare.

    ks, ks_most: largest difference of the distribution functions at the edges, and the most that it can be between
        them. psi: without upper bound. js, js_missing: in [0, 1], of the values (missing and infinite ones in bins of
        their own) and of the share of missing ones. wasserstein: in standard deviations of the reference.
    """

    ks: float | None
    ks_most: float | None
    psi: float | None
    js: float | None
    js_missing: float | None
    wasserstein: float | None


def distances(found: ColumnProfile, reference: ColumnProfile, groups: Ints | None = None) -> Distances:
    """All of them, of ``found`` from ``reference``, which were counted in the same bins; ``groups``: its `joins`."""
    if not found.rows or not reference.rows:
        return Distances(ks=None, ks_most=None, psi=None, js=None, js_missing=None, wasserstein=None)
    groups = joins(reference.counts, reference.layout) if groups is None else groups
    shares = joined(np.stack([shares_of(found), shares_of(reference)]), groups)
    ordered = reference.layout.kind == "number" and found.finite and reference.finite
    least, most = ks_between(found.counts, reference.counts, reference.layout) if ordered else (None, None)
    return Distances(
        ks=least,
        ks_most=most,
        psi=psi(shares[0], shares[1]),
        js=float(js_distance(shares[0], shares[1])),
        js_missing=float(js_distance(missing_shares(found), missing_shares(reference))),
        wasserstein=_in_deviations(found, reference) if ordered else None,
    )


def ks(one: Ints, other: Ints) -> float:
    """Largest difference of the two distribution functions at the bins' edges; counts, neither all zero."""
    return float(np.max(np.abs(_apart(one, other)), initial=0.0))


def ks_between(one: Ints, other: Ints, layout: Layout) -> tuple[float, float]:
    """Between which bounds the exact two-sample statistic lies.

    Inside a bin the one function may rise before the other does, by as much as it holds there; not in a bin of a single
    value.
    """
    p, q = one / one.sum(), other / other.sum()
    before = np.concatenate([[0.0], _apart(one, other)[:-1]])
    inside = np.where(layout.single, -np.inf, np.maximum(before + p, q - before))
    least = ks(one, other)
    return least, float(max(least, np.max(inside, initial=0.0)))


def psi(found: Floats, reference: Floats) -> float:
    """Population stability index of two histograms: 0 equal, above .25 by custom a large shift."""
    p, q = (np.maximum(part / part.sum(), _FLOOR) for part in (found, reference))
    return float(np.sum((p - q) * np.log(p / q)))


def js_distance(one: NDArray[np.generic], other: NDArray[np.generic]) -> Floats:
    """Square root of the Jensen-Shannon divergence (base 2) of two histograms: 0 equal; 1 disjoint, or one is empty.

    Along the last axis, so of many pairs at once.
    """
    p, q = (np.asarray(part, dtype=np.float64) for part in (one, other))
    totals = p.sum(axis=-1, keepdims=True), q.sum(axis=-1, keepdims=True)
    p, q = p / np.maximum(totals[0], _TINY), q / np.maximum(totals[1], _TINY)
    middle = (p + q) / 2 + _TINY
    terms = p * np.log2((p + _TINY) / middle) + q * np.log2((q + _TINY) / middle)
    # Rounding may leave the finest bit beyond the ends.
    distance = np.sqrt(np.clip(terms.sum(axis=-1) / 2, 0.0, 1.0))
    found: Floats = np.where((totals[0][..., 0] > 0) & (totals[1][..., 0] > 0), distance, 1.0)
    return found


def wasserstein(one: Ints, other: Ints, positions: Floats) -> float:
    """The first Wasserstein distance of two histograms whose bins stand at ``positions`` (ascending); in their unit."""
    return float(np.sum(np.abs(_apart(one, other)[:-1]) * np.diff(positions)))


def _apart(one: Ints, other: Ints) -> Floats:
    """The difference of the distribution functions behind each bin."""
    found: Floats = np.cumsum(one) / one.sum() - np.cumsum(other) / other.sum()
    return found


def positions(layout: Layout) -> Floats:
    """Where each bin stands: in its middle, the outer ones at the outermost edges. Of numbers, at least one edge."""
    middles = layout.edges[:-1] + np.diff(layout.edges) / 2
    middles = np.where(layout.single[1:-1], layout.edges[:-1], middles)
    return np.concatenate([layout.edges[:1], middles, layout.edges[-1:]])


def shares_of(found: ColumnProfile) -> Floats:
    """Shares of the rows by bin; behind the layout's bins come negative and positive infinities, and missing values."""
    return with_rest(found.counts, np.array([found.below, found.above, found.missing])) / found.rows


def missing_shares(found: ColumnProfile) -> Floats:
    """Share of the rows that have a value, and that have none."""
    return np.array([found.rows - found.missing, found.missing]) / found.rows


def with_rest(counts: NDArray[np.generic], rest: NDArray[np.generic]) -> Floats:
    """The layout's bins and what lies in none of them, along the last axis."""
    return np.concatenate([counts, rest], axis=-1).astype(np.float64)


def joins(reference: Ints, layout: Layout) -> Ints:
    """Which bins are joined with their neighbours: a number for each, ascending.

    Joined bins hold a tenth of the reference; a bin that holds as much by itself, one of a single value that holds a
    hundredth, and both outer ones stay as they are. So do those of text that hold a hundredth; the others are joined.
    """
    total = max(int(reference.sum()), 1)
    if layout.kind == "category":
        rare = reference < total / JOINED**2
        return np.where(rare, 0, np.cumsum(~rare)).astype(np.int64)
    if not len(reference):
        return np.zeros(0, dtype=np.int64)
    alone = (reference >= total / JOINED) | (layout.single & (reference >= total / JOINED**2))
    alone[[0, -1]] = True
    found, group, held = np.zeros(len(reference), dtype=np.int64), 0, 0
    for place, count in enumerate(reference.tolist()):
        if place and (alone[place] or alone[place - 1] or held >= total / JOINED):
            group, held = group + 1, 0
        found[place], held = group, held + count
    return found


def joined(histograms: Floats, groups: Ints) -> Floats:
    """Histograms (a row each) with the bins of each group added up; what stands behind the bins is kept as it is."""
    bins = len(groups)
    width = int(groups.max(initial=-1)) + 1
    into = np.zeros((bins, width))
    into[np.arange(bins), groups] = 1
    return np.concatenate([histograms[:, :bins] @ into, histograms[:, bins:]], axis=1)


def _in_deviations(found: ColumnProfile, reference: ColumnProfile) -> float | None:
    """Of a reference without spread there is no unit; then any move is told in the column's own."""
    if not len(reference.layout.edges):
        return None
    moved = wasserstein(found.counts, reference.counts, positions(reference.layout))
    unit = reference.deviation
    return moved / unit if unit > 0 and np.isfinite(unit) else moved
