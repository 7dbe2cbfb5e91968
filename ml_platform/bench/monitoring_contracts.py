"""Contracts beside Great Expectations: 25 expectations on 20 columns, the same verdicts and counts first."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from ml_platform.bench.arms import ArmRun, run_arm
from ml_platform.spec import PlatformError
from ml_platform.spec import expectations as gxe

_ARM = "ml_platform.bench.monitoring_contracts_arm"
_SEED = 6
_WORDS = ("alpha", "beta", "gamma", "delta")
EXPECTATIONS: tuple[gxe.Expectation, ...] = (
    *gxe.ExpectColumnValuesToNotBeNull.each("id", "i0", "i1", "f0", "s0"),
    *(gxe.ExpectColumnValuesToBeBetween(column=f"f{n}", min_value=-5, max_value=5) for n in range(1, 6)),
    *(gxe.ExpectColumnValuesToBeBetween(column=f"i{n}", min_value=0, max_value=999) for n in range(2, 4)),
    *(gxe.ExpectColumnValuesToBeInSet(column=f"s{n}", value_set=_WORDS) for n in range(2)),
    gxe.ExpectColumnValuesToNotBeInSet(column="s2", value_set=("never",)),
    gxe.ExpectColumnValuesToBeUnique(column="id"),
    gxe.ExpectColumnValuesToBeIncreasing(column="id"),
    gxe.ExpectColumnValuesToMatchRegex(column="s3", regex="^[A-Z]{2}[0-9]+$"),
    gxe.ExpectColumnValueLengthsToBeBetween(column="s3", min_value=3, max_value=8),
    gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="f6", column_B="f7", or_equal=True, mostly=0.4),
    gxe.ExpectColumnMeanToBeBetween(column="f8", min_value=-0.1, max_value=0.1),
    gxe.ExpectColumnMaxToBeBetween(column="i4", max_value=999),
    gxe.ExpectColumnStdevToBeBetween(column="f9", min_value=0.9, max_value=1.1),
    gxe.ExpectColumnDistinctValuesToBeInSet(column="s0", value_set=_WORDS),
    gxe.ExpectTableRowCountToBeBetween(min_value=1),
)


def frame(rows: int) -> pl.DataFrame:
    """20 columns: a key, 5 whole numbers, 10 reals, 4 texts; a bad value in a thousand, a missing one in a hundred."""
    rng = np.random.default_rng(_SEED)
    columns = {"id": pl.Series(np.arange(rows))}
    columns |= {f"i{n}": pl.Series(rng.integers(0, 1000 + (n == 3), rows)) for n in range(5)}
    columns |= {f"f{n}": pl.Series(rng.normal(0, 1, rows)) for n in range(10)}
    words = pl.Series([*_WORDS, "bad"], dtype=pl.String)
    for n in range(3):
        codes = rng.choice(5, rows, p=[0.25, 0.25, 0.25, 0.249, 0.001])
        columns[f"s{n}"] = words.gather(pl.Series(codes))
    columns["s3"] = ("AB" + pl.Series(rng.integers(0, 10_000, rows)).cast(pl.String)).alias("s3")
    missing = pl.Series(rng.random(rows) < 0.01)
    gaps = ("f0", "f1", "f2", "s0", "s1")
    return pl.DataFrame(columns).with_columns(pl.when(~missing).then(pl.col(name)).alias(name) for name in gaps)


def measure(*, quick: bool, echo: Callable[[str], object]) -> None:
    """Print how long both take, at the same rows, and how much memory.

    Raises:
        PlatformError: they differ in a verdict or a count, or Great Expectations is not installed.
    """
    echo(f"contracts: {len(EXPECTATIONS)} expectations x 20 columns")
    for rows, turns in ((100_000, 1),) if quick else ((500_000, 3), (5_000_000, 1)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.parquet"
            frame(rows).write_parquet(path)
            ours, theirs = _in_turns(path, turns)
        _refuse_differences(ours[0], theirs[0])
        mine, peer = (median(run.said["seconds"] for run in runs) for runs in (ours, theirs))
        cpu = [median(run.said["cpu"] for run in runs) for runs in (ours, theirs)]
        convert = median(run.said["convert"] for run in theirs)
        memory = [max(run.peak_mb for run in runs) for runs in (ours, theirs)]
        echo(
            f"  {rows:,} rows: ours {mine:.2f} s (processor {cpu[0]:.2f} s, {memory[0]:,.0f} MB), "
            f"Great Expectations on pandas {peer:.1f} s (processor {cpu[1]:.1f} s, {memory[1]:,.0f} MB; and "
            f"{convert:.1f} s to make the pandas frame): {peer / mine:.0f} times (aim 15), {cpu[1] / cpu[0]:.0f} of "
            f"processor time; the same verdicts and counts"
        )


def _in_turns(path: Path, turns: int) -> tuple[list[ArmRun], list[ArmRun]]:
    ours, theirs = [], []
    for _ in range(turns):
        ours.append(run_arm(_ARM, "ours", str(path)))
        theirs.append(run_arm(_ARM, "great-expectations", str(path)))
    return ours, theirs


def _refuse_differences(ours: ArmRun, theirs: ArmRun) -> None:
    mine, peers = ours.said["found"], theirs.said["found"]
    if mine != peers:
        different = {name: (mine[name], peers.get(name)) for name in mine if mine[name] != peers.get(name)}
        raise PlatformError(f"the answers differ (ours, Great Expectations'): {different}")
