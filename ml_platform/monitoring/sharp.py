"""The rule that pages: a distance far beyond what the reference days show among themselves.

An effect size, no p-value: with a thousand rows a day any test finds a difference every day, because a day differs
from the next one for good reasons (weather, season). What pages must be larger than all of these.
"""

from datetime import date

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ml_platform.spec import Verdict
from ml_platform.spec.alarms import SharpRule

Floats = NDArray[np.float64]
FLOOR = 0.05  # below that a distance is what counting a few hundred rows does to it
_MOST = 0.999  # the odds of 1 are infinite
_NAMED = 3


def sharp_threshold(usual: ArrayLike, rule: SharpRule) -> Floats:
    """From which distance on a change is sharp, (columns,). ``usual``: the largest among the reference days, 0..1."""
    largest = np.asarray(usual, dtype=np.float64)
    return np.maximum(rule.min_distance, rule.odds * largest / (1 + (rule.odds - 1) * largest))


def standardised(distances: ArrayLike, usual: ArrayLike) -> Floats:
    """Odds of the distances in multiples of the usual largest odds, (columns,): what columns of every kind share.

    So a change is sharp from ``SharpRule.odds`` on, and the adaptive threshold is in the same unit. Disjoint histograms
    (distance 1) have the odds of .999.
    """
    far = np.minimum(np.asarray(distances, dtype=np.float64), _MOST)
    largest = np.clip(np.asarray(usual, dtype=np.float64), FLOOR, _MOST)
    return np.asarray(far / (1 - far) * (1 - largest) / largest)


def day_score(distances: ArrayLike, usual: ArrayLike) -> float | None:
    """The largest standardised distance of a day; None without a column that has one (NaN: not to be compared)."""
    found = standardised(distances, usual)
    found = found[np.isfinite(found)]
    return float(found.max()) if found.size else None


def sharp(table: pl.DataFrame, day: date, against: str, rule: SharpRule) -> tuple[Verdict, pl.DataFrame]:
    """Judge a day's distances.

    table: ``feature``, ``of`` (values or missing values), ``distance`` and ``usual_maximum``, both null or NaN where
        a column could not be compared.
    against: what the day was compared with, for the reason.

    Returns:
        The verdict, and the table with ``threshold`` and ``verdict``, the nearest to failing (or the farthest beyond)
        first. Columns that could not be compared are *unknown*; the day is when all are.
    """
    threshold = pl.Series("threshold", sharp_threshold(table["usual_maximum"].fill_null(np.nan), rule))
    told = table.with_columns(
        pl.col("distance", "usual_maximum").fill_nan(None), threshold.fill_nan(None)
    ).with_columns(
        pl.when(pl.any_horizontal(pl.col("distance", "threshold").is_null()))
        .then(pl.lit("unknown"))
        .when(pl.col("distance") >= pl.col("threshold"))
        .then(pl.lit("fail"))
        .otherwise(pl.lit("pass"))
        .alias("verdict")
    )
    ordered = told.sort(
        pl.col("distance") / pl.col("threshold"), "feature", "of", descending=[True, False, False], nulls_last=True
    )
    return _verdict(ordered, day, against), ordered


def _verdict(table: pl.DataFrame, day: date, against: str) -> Verdict:
    compared = table.filter(pl.col("verdict") != "unknown")
    failing = compared.filter(pl.col("verdict") == "fail")
    if compared.is_empty():
        return Verdict.unknown(f"{day}: nothing could be compared with {against}")
    measures = {
        "features": compared.height,
        "features_drifted": failing.height,
        "largest_distance": float(compared["distance"].max()),  # type: ignore[arg-type]
    }
    if failing.is_empty():
        reason = f"{day}: no sharp change in {compared.height} features against {against}"
        return Verdict(state="pass", reason=reason, measures=measures)
    named = ", ".join(
        f"{row['of']} of {row['feature']} ({row['distance']:.2f}, usually at most {row['usual_maximum']:.2f})"
        for row in failing.head(_NAMED).iter_rows(named=True)
    )
    changed = f"{failing.height} of {compared.height} features changed sharply"
    return Verdict(state="fail", reason=f"{day}: {changed} against {against}: {named}", measures=measures)
