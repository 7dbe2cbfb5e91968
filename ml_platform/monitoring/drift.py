"""Have the served features changed? Histograms of a day against the days before, feature by feature.

The distance is Jensen-Shannon with base 2 (Lin 1991), its square root, in [0, 1]. Edges are the reference's quantiles,
so that no outlier hides a shift; a value that many rows share has a bin of its own, and so has what lies far outside
the reference. The share of missing values is judged apart as well: weather moves so much from day to day that losing
it altogether would drown in what is usual.
"""

from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import DriftPolicy, Verdict

BINS = 10
_FEWEST_DAYS = 2  # with one reference day there is no other to say what is usual
_SLACK = 0.5  # of the reference's range: a season's first warm day is no change of unit
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
COLUMNS = {
    "feature": pl.String,
    "of": pl.String,
    "distance": pl.Float64,
    "usual_maximum": pl.Float64,
    "threshold": pl.Float64,
    "verdict": pl.String,
}


def drift(served: pl.DataFrame, days: pl.Series, day: date, policy: DriftPolicy) -> tuple[Verdict, pl.DataFrame]:
    """Judge ``day`` against the reference days before it.

    served: one Float64 column a feature, one row a prediction; ``days``: the day of each row.

    Returns:
        The verdict and one row a feature, the most drifted first; ``of`` says whether the feature's values or its
        missing values came closer to their threshold (or went further beyond it).
    """
    held, needed = reference(days, day, policy), max(policy.min_days, _FEWEST_DAYS)
    answers = int((days == day).sum())
    if answers < policy.min_rows:
        return Verdict.unknown(f"{answers} answers on {day}; {policy.min_rows} are needed"), _none()
    if len(held) < needed:
        reason = f"{len(held)} days to compare {day} with; {needed} are needed"
        return Verdict.unknown(reason, reference_days=len(held)), _none()
    if not served.width:
        return Verdict.unknown(f"the answers of {day} were given without any feature"), _none()
    kept = days.is_in([*held, day])
    places = np.searchsorted(np.array([*held, day], dtype="datetime64[D]"), days.filter(kept).to_numpy())
    rows = [(name, *_worse(served[name].filter(kept).to_numpy(), places, policy)) for name in served.columns]
    table = pl.DataFrame(rows, schema=COLUMNS, orient="row").sort(
        pl.col("distance") / pl.col("threshold"), "feature", descending=[True, False]
    )
    return _verdict(table, day, len(held), policy), table


def reference(days: pl.Series, day: date, policy: DriftPolicy) -> list[date]:
    """The newest days before ``day`` with answers enough, at most as many as the policy compares with, in order."""
    counts = days.value_counts(name="rows").iter_rows()
    return sorted(d for d, rows in counts if d < day and rows >= policy.min_rows)[-policy.reference_days :]


def changed_most(before: pl.DataFrame, current: pl.DataFrame) -> list[str]:
    """Names of the columns whose values, missing ones included, are farthest from those before; the farthest first."""
    places = np.repeat([0, 1], [before.height, current.height])
    far = {
        name: js_distance(*_daily_counts(np.concatenate([before[name], current[name]]).astype(np.float64), places))
        for name in current.columns
    }
    return sorted(far, key=lambda name: (-far[name], name))


def _none() -> pl.DataFrame:
    return pl.DataFrame(schema=COLUMNS)


def _worse(values: Floats, places: Ints, policy: DriftPolicy) -> tuple[str, float, float, float, str]:
    """The feature's values or its missing values, whichever is nearer to failing. ``places``: the day, judged last."""
    counts = _daily_counts(values, places)
    missing = np.column_stack([counts[:, :-1].sum(axis=1), counts[:, -1]])
    judged = [(of, *_judge(part, policy)) for of, part in (("values", counts), ("missing values", missing))]
    return max(judged, key=lambda found: found[1] / found[3])


def _judge(counts: Floats, policy: DriftPolicy) -> tuple[float, float, float, str]:
    """(distance, usual maximum, threshold, verdict) of the last row of counts against the rows before it."""
    reference = counts[:-1]
    total = reference.sum(axis=0)
    usual = max(js_distance(one, total - one) for one in reference)
    distance = js_distance(counts[-1], total)
    # Twice 0.7 is more than any distance can be: where days differ that much, most of the room that is left counts.
    threshold = max(policy.min_distance, min(policy.ratio * usual, 1 - (1 - usual) / policy.ratio))
    return distance, usual, threshold, "fail" if distance >= threshold else "pass"


def _daily_counts(values: Floats, places: Ints) -> Floats:
    """Counts by day and bin, missing values in the last bin; bins are those of the days before the last."""
    missing = np.isnan(values)
    days = int(places.max()) + 1
    edges = _edges(values[~missing & (places < days - 1)])
    width = len(edges) + 2
    bins = np.where(missing, width - 1, np.searchsorted(edges, values, side="right"))
    return np.bincount(places * width + bins, minlength=days * width).reshape(days, width).astype(np.float64)


def _edges(values: Floats) -> Floats:
    """Ascending; a value lies right of an edge that it equals."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.array([])
    inner = np.quantile(finite, np.linspace(0, 1, BINS + 1)[1:-1])
    slack = _SLACK * (finite.max() - finite.min())
    outer = [finite.min() - slack, np.nextafter(finite.max() + slack, np.inf)]
    return np.unique(np.concatenate([inner, np.nextafter(inner, np.inf), outer]))


def js_distance(one: Floats, other: Floats) -> float:
    """Square root of the Jensen-Shannon divergence (base 2) of two histograms of counts; 0 equal, 1 disjoint."""
    if one.sum() == 0 or other.sum() == 0:
        return 1.0
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2
    # Rounding may leave the finest bit beyond the ends.
    return float(np.sqrt(min(1.0, max(0.0, (_divergence(p, middle) + _divergence(q, middle)) / 2))))


def _divergence(p: Floats, q: Floats) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))


def _verdict(table: pl.DataFrame, day: date, reference_days: int, policy: DriftPolicy) -> Verdict:
    failing = table.filter(pl.col("verdict") == "fail")
    measures = {
        "features": table.height,
        "features_drifted": failing.height,
        "largest_distance": float(table["distance"].max()),  # type: ignore[arg-type]
        "reference_days": reference_days,
    }
    if failing.is_empty():
        reason = f"{day}: no sharp change in {table.height} features against {reference_days} days"
        return Verdict(state="pass", reason=reason, measures=measures)
    named = ", ".join(
        f"{row['of']} of {row['feature']} ({row['distance']:.2f}, usually at most {row['usual_maximum']:.2f})"
        for row in failing.head(3).iter_rows(named=True)
    )
    reason = (
        f"{day}: {failing.height} of {table.height} features changed sharply against {reference_days} days: {named}"
    )
    return Verdict(state="fail", reason=reason, measures=measures)
