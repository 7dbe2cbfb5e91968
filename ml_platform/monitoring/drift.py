"""Have the served features changed? Histograms of a day against the days before, feature by feature.

The distance is Jensen-Shannon with base 2 (Lin 1991), its square root, in [0, 1]; missing values are a bin of their
own. Edges are the reference's quantiles, so that no outlier hides a shift.
"""

from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import DriftPolicy, Verdict

BINS = 10
Floats = NDArray[np.float64]
COLUMNS = {"feature": pl.String, "distance": pl.Float64, "usual_maximum": pl.Float64, "verdict": pl.String}


def drift(served: pl.DataFrame, days: pl.Series, day: date, policy: DriftPolicy) -> tuple[Verdict, pl.DataFrame]:
    """Judge ``day`` against the reference days before it.

    served: one Float64 column a feature, one row a prediction; ``days``: the day of each row.

    Returns:
        The verdict and one row a feature, the most drifted first.
    """
    counts = days.value_counts().filter(pl.col("count") >= policy.min_rows)
    reference_days = sorted(d for d in counts[days.name] if d < day)[-policy.reference_days :]
    current = served.filter(days == day)
    if current.height < policy.min_rows:
        return Verdict.unknown(f"{current.height} answers on {day}; {policy.min_rows} are needed"), _none()
    if len(reference_days) < policy.min_days:
        reason = f"{len(reference_days)} days to compare {day} with; {policy.min_days} are needed"
        return Verdict.unknown(reason, reference_days=len(reference_days)), _none()
    rows = [_feature(name, served, days, current, reference_days, policy) for name in served.columns]
    table = pl.DataFrame(rows, schema=COLUMNS, orient="row").sort("distance", descending=True)
    return _verdict(table, day, len(reference_days), policy), table


def _none() -> pl.DataFrame:
    return pl.DataFrame(schema=COLUMNS)


def _feature(
    name: str,
    served: pl.DataFrame,
    days: pl.Series,
    current: pl.DataFrame,
    reference_days: list[date],
    policy: DriftPolicy,
) -> tuple[str, float, float, str]:
    codes, edges = days.to_physical().to_numpy(), [d.toordinal() for d in reference_days]
    epoch = date(1970, 1, 1).toordinal()
    values = served[name].to_numpy()
    by_day = [values[codes == ordinal - epoch] for ordinal in edges]
    pooled = np.concatenate(by_day)
    bounds = _quantile_edges(pooled)
    total = sum(_histogram(part, bounds) for part in by_day)
    usual = max(js_distance(_histogram(part, bounds), total - _histogram(part, bounds)) for part in by_day)
    distance = js_distance(_histogram(current[name].to_numpy(), bounds), total)
    is_sharp = distance >= max(policy.min_distance, policy.ratio * usual)
    return name, distance, usual, "fail" if is_sharp else "pass"


def _quantile_edges(values: Floats) -> Floats:
    present = values[~np.isnan(values)]
    if present.size == 0:
        return np.array([])
    return np.unique(np.quantile(present, np.linspace(0, 1, BINS + 1)[1:-1]))


def _histogram(values: Floats, edges: Floats) -> Floats:
    """Counts by quantile bin, missing values last."""
    missing = np.isnan(values)
    places = np.searchsorted(edges, values[~missing], side="right")
    return np.append(np.bincount(places, minlength=len(edges) + 1), missing.sum()).astype(np.float64)


def js_distance(one: Floats, other: Floats) -> float:
    """Square root of the Jensen-Shannon divergence (base 2) of two histograms of counts; 0 equal, 1 disjoint."""
    if one.sum() == 0 or other.sum() == 0:
        return 1.0
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2
    return float(np.sqrt(max(0.0, (_divergence(p, middle) + _divergence(q, middle)) / 2)))


def _divergence(p: Floats, q: Floats) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))


def _verdict(table: pl.DataFrame, day: date, reference_days: int, policy: DriftPolicy) -> Verdict:
    failing = table.filter(pl.col("verdict") == "fail")
    measures = {
        "features": table.height,
        "features_drifted": failing.height,
        "largest_distance": table["distance"][0],
        "reference_days": reference_days,
    }
    if failing.is_empty():
        reason = f"{day}: no sharp change in {table.height} features against {reference_days} days"
        return Verdict(state="pass", reason=reason, measures=measures)
    named = ", ".join(f"{name} ({distance:.2f}, usually at most {usual:.2f})" for name, distance, usual, _ in failing.head(3).rows())
    reason = f"{day}: {failing.height} of {table.height} features changed sharply against {reference_days} days: {named}"
    return Verdict(state="fail", reason=reason, measures=measures)
