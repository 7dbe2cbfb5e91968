"""The rules that monitors come with: each week against the four before, column by column."""

from collections.abc import Mapping

import numpy as np

from ml_platform.bench.monitoring_days import Days, Floats

SIGNIFICANT, FAR = 0.05, 0.2
BEFORE = 28  # days that a week is compared with
_BINS = 10


def naive(days: Days, first: int) -> Mapping[str, bool]:
    """Which rules alarm in the week that begins at a place."""
    current, reference = days.rows(first, first + 7), days.rows(first - BEFORE, first)
    columns = [(now[~np.isnan(now)], old[~np.isnan(old)]) for now, old in zip(current.T, reference.T, strict=True)]
    held = [(now, old) for now, old in columns if now.size and old.size]
    values = np.array([_ks(*pair) for pair in held])
    return {
        "Kolmogorov-Smirnov p < .05 on any column": bool((values < SIGNIFICANT).any()),
        "the same, Benjamini-Hochberg": benjamini_hochberg(values, SIGNIFICANT),
        "PSI > .2 on any column": any(psi(*pair) > FAR for pair in held),
    }


def _ks(current: Floats, reference: Floats) -> float:
    from scipy.stats import ks_2samp

    return float(ks_2samp(current, reference, method="asymp").pvalue)


def benjamini_hochberg(values: Floats, rate: float) -> bool:
    """Whether any hypothesis is rejected at the false discovery rate (Benjamini & Hochberg 1995)."""
    return bool((np.sort(values) <= rate * np.arange(1, len(values) + 1) / max(1, len(values))).any())


def psi(current: Floats, reference: Floats) -> float:
    """Population stability index on the reference's deciles; empty bins count as half a row."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
    shares = [
        np.maximum(np.bincount(np.searchsorted(edges, rows, side="left"), minlength=len(edges) + 1), 0.5) / len(rows)
        for rows in (current, reference)
    ]
    return float(np.sum((shares[0] - shares[1]) * np.log(shares[0] / shares[1])))
