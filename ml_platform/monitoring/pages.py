"""Evidently's page for people, made on a sample in a process of its own: it needs seconds and half a gigabyte."""

import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import polars as pl

from ml_platform.spec import DriftPolicy, PlatformError

SAMPLE_ROWS = 2000
CURRENT_DAYS = 7
_TIMEOUT_SECONDS = 300  # Evidently takes about ten seconds on a sample of this size


def write_drift_page(served: pl.DataFrame, days: pl.Series, policy: DriftPolicy, target: Path) -> str:
    """Compare the last week of served features with the weeks before; writes ``target``, returns what was compared.

    Raises:
        PlatformError: Evidently failed; its last lines are in the message.
    """
    last = days.max()
    if served.is_empty() or last is None:
        return "nothing was served yet, so there is nothing to show"
    begins = last - timedelta(days=CURRENT_DAYS - 1)  # type: ignore[operator]
    earliest = begins - timedelta(days=policy.reference_days)
    current = _sample(served.filter(days >= begins))
    reference = _sample(served.filter((days < begins) & (days >= earliest)))
    if reference.is_empty():
        return f"nothing was served before {begins}, so there is nothing to compare with"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "current.parquet", Path(folder) / "reference.parquet"
        current.write_parquet(paths[0])
        reference.write_parquet(paths[1])
        command = [sys.executable, "-m", "ml_platform.monitoring.evidently_page", *map(str, paths), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise PlatformError(f"Evidently could not make {target.name}; materialize the page again:\n{tail}")
    return f"{current.height} sampled answers since {begins} against {reference.height} since {earliest}"


def _sample(rows: pl.DataFrame) -> pl.DataFrame:
    # Columns that are null throughout tell nothing, and Evidently refuses them.
    kept = rows.select(column for column in rows if column.null_count() < len(column))
    return kept.sample(min(SAMPLE_ROWS, kept.height), seed=0)
