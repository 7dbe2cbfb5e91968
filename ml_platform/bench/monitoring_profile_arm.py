"""Run as a process: `python -m ml_platform.bench.monitoring_profile_arm ARM ROWS COLUMNS`; prints a JSON line.

Each arm has made the same frames before its clock starts: ``profile`` holds the reference's profile, which is there
from the day on which its rows came, and the day's frame; the others hold both frames.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from ml_platform.bench.arms import peak_mb
from ml_platform.monitoring.distances import Distances, distances
from ml_platform.monitoring.layouts import learn
from ml_platform.monitoring.profile import ColumnProfile, Floats, profile

ARMS = ("profile", "ks_2samp", "evidently")
_MB = 2**20


def column(number: int, rows: int, *, current: bool) -> Floats:
    """A column of one of six shapes; of the current frame every third has moved by a fifth of its spread."""
    chance = np.random.default_rng([number, int(current)])
    moved = 0.2 if current and number % 3 == 0 else 0.0
    shape = number % 6
    if shape == 0:
        return chance.normal(50 + 10 * moved, 10, rows)
    if shape == 1:
        return chance.lognormal(moved, 1, rows)
    if shape == 2:
        return chance.poisson(4 * (1 + moved), rows).astype(np.float64)
    if shape == 3:
        values = chance.exponential(1 + moved, rows)
        values[chance.random(rows) < 0.05] = np.nan
        return values
    if shape == 4:
        return np.where(chance.random(rows) < 0.6, 0.0, chance.uniform(0, 1 + moved, rows))
    return chance.standard_t(3, rows) + moved


def _columns(rows: int, columns: int, *, current: bool) -> Iterator[tuple[str, Floats]]:
    return ((f"column_{number:02}", column(number, rows, current=current)) for number in range(columns))


def _frame(rows: int, columns: int, *, current: bool) -> pl.DataFrame:
    return pl.DataFrame([pl.Series(name, values) for name, values in _columns(rows, columns, current=current)])


def _profile(rows: int, columns: int) -> dict[str, Any]:
    reference: dict[str, ColumnProfile] = {}
    for name, values in _columns(rows, columns, current=False):
        one = pl.DataFrame({name: values})
        (reference[name],) = profile(one, learn(one, days=1))
    current = _frame(rows, columns, current=True)
    size, before = current.estimated_size() / _MB, peak_mb()
    began = time.process_time()
    found = profile(current, [one.layout for one in reference.values()])
    apart = {one.column: distances(one, reference[one.column]) for one in found}
    seconds = time.process_time() - began
    told = {name: _bounds(one) for name, one in apart.items()}
    return {"seconds": seconds, "answer": told, "frame_mb": size, "peak_before_mb": before, "peak_mb": peak_mb()}


def _bounds(found: Distances) -> tuple[float | None, float | None]:
    return found.ks, found.ks_most


def _ks(rows: int, columns: int) -> dict[str, Any]:
    from scipy.stats import ks_2samp

    parts = [dict(_columns(rows, columns, current=current)) for current in (False, True)]
    began = time.process_time()
    found = {
        name: float(ks_2samp(*(part[name][~np.isnan(part[name])] for part in parts), method="asymp").statistic)
        for name in parts[0]
    }
    return {"seconds": time.process_time() - began, "answer": found, "peak_mb": peak_mb()}


def _evidently(rows: int, columns: int) -> dict[str, Any]:
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    frames = [pd.DataFrame(dict(_columns(rows, columns, current=current))) for current in (True, False)]
    names = list(frames[0].columns)
    began = time.process_time()
    current, reference = (
        Dataset.from_pandas(frame, data_definition=DataDefinition(numerical_columns=names)) for frame in frames
    )
    snapshot = Report([DataDriftPreset()]).run(current, reference)
    told = snapshot.dict()["metrics"]
    seconds = time.process_time() - began
    return {"seconds": seconds, "answer": {"metrics": len(told)}, "peak_mb": peak_mb()}


def main(arm: str, rows: int, columns: int) -> None:
    """Measure one arm."""
    said = {"profile": _profile, "ks_2samp": _ks, "evidently": _evidently}[arm](rows, columns)
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
