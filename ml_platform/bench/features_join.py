"""The point-in-time join through Feast's interface, against Feast's DuckDB store and Polars' ``join_asof`` by hand."""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import click
import polars as pl

from ml_platform.bench.arms import ArmRun, run_arm
from ml_platform.bench.features_join_data import CASES, Case, write_case
from ml_platform.spec import PlatformError

_ARM = "ml_platform.bench.features_join_arm"
_OURS = "ours"
_BY_HAND = ("join_asof by hand", "join_asof, tuned")
_DUCKDB = ("Feast duckdb", "Feast duckdb, tuned")
_REPEATS = 5


def measure(quick: bool) -> None:
    """Print a table a case; every peer as it comes and tuned, arms interleaved, medians."""
    peers = list(_BY_HAND)
    if find_spec("duckdb") and find_spec("ibis"):
        peers += _DUCKDB
    else:
        click.secho(
            "Feast's DuckDB store is left out: its packages are not installed. Get them with pip install "
            "'ml-platform[bench]' (pip install -e '.[bench]' in a clone)",
            fg="yellow",
        )
    cases = (
        [("quick", peers, 1)] if quick else [("336k x 2", peers, _REPEATS), ("3.4M x 3", peers, 3), ("10M x 2", [], 2)]
    )
    for name, others, repeats in cases:
        with tempfile.TemporaryDirectory(prefix="ml_platform_bench_") as folder:
            _case(CASES[name], [_OURS, *others], repeats, Path(folder) / "case")


def _case(case: Case, arms: Sequence[str], repeats: int, folder: Path) -> None:
    sizes = " + ".join(f"{view.rows:,} of {view.keys:,} keys" for view in case.views)
    click.echo(f"\nload of the last minute {os.getloadavg()[0]:.1f}")
    click.echo(f"join {case.name}: {case.questions:,} questions; rows {sizes}; three features a view")
    write_case(case, folder)
    if len(arms) > 1:
        refuse_unequal(case, arms, folder)
        click.echo("answers equal in every row")
    else:
        run_arm(_ARM, arms[0], case.name, str(folder))  # registers the views
    runs: dict[str, list[ArmRun]] = {arm: [] for arm in arms}
    interleaved = [arm for _ in range(repeats) for arm in arms]
    with click.progressbar(interleaved, label=case.name, item_show_func=lambda arm: arm, file=sys.stderr) as shown:
        for arm in shown:
            runs[arm].append(run_arm(_ARM, arm, case.name, str(folder)))
    _show(case, runs)


def refuse_unequal(case: Case, arms: Sequence[str], folder: Path) -> None:
    """Let every arm answer once and compare.

    Raises:
        PlatformError: two arms differ; figures of different questions would say nothing.
    """
    expected = None
    for arm in arms:
        path = folder / "answer.parquet"
        run_arm(_ARM, arm, case.name, str(folder), str(path))
        found = pl.read_parquet(path).sort("row").with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))
        if expected is None:
            expected = found
        elif not found.select(expected.columns).equals(expected):
            raise PlatformError(f"{arm} answers {case.name} otherwise than {arms[0]}; nothing was measured")


def _show(case: Case, runs: Mapping[str, Sequence[ArmRun]]) -> None:
    seconds = {arm: median(run.said["seconds"] for run in done) for arm, done in runs.items()}
    peaks = {arm: median(run.peak_mb for run in done) for arm, done in runs.items()}
    cores = {arm: median(run.said["core_seconds"] for run in done) for arm, done in runs.items()}
    held = {arm: median(run.said["held_mb"] for run in done) for arm, done in runs.items()}
    names = {
        "seconds": 9,
        "range": 14,
        "core s": 9,
        "rows/s": 12,
        "peak MB": 9,
        "before MB": 11,
        "x time": 8,
        "x peak": 8,
    }
    click.echo(" " * 22 + "".join(f"{name:>{width}}" for name, width in names.items()))
    for arm, done in runs.items():
        all_seconds = sorted(run.said["seconds"] for run in done)
        click.echo(
            f"{arm:22}{seconds[arm]:9.2f}{f'{all_seconds[0]:.2f}-{all_seconds[-1]:.2f}':>14}"
            f"{cores[arm]:9.2f}{case.questions / seconds[arm]:12,.0f}{peaks[arm]:9.0f}{held[arm]:11.0f}"
            f"{seconds[arm] / seconds[_OURS]:8.1f}{peaks[arm] / peaks[_OURS]:8.1f}"
        )
