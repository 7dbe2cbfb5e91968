"""Windows: a year of events, questions at any second of it, four windows; beside Polars' rolling expressions.

Run it: ``python -m ml_platform.bench.features_windows``. Each arm runs in a process of its own, from frames in memory
to the answer; all answers are compared before anything is timed.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import polars as pl

from ml_platform.bench.arms import ArmRun, machine, run_arm
from ml_platform.bench.features_windows_arm import ENTITIES, KINDS, SPANS
from ml_platform.spec import PlatformError

_ARM = "ml_platform.bench.features_windows_arm"
OURS, PEERS = "ours", ("rolling_sum_by", "rolling, tuned", "join_asof, tuned")
SHARE, LARGEST_GB = 1 / 3, 8  # the bars: of the time of rolling_sum_by, and memory at the larger size
_REPEATS = 5


def compared(events: int, questions: int, repeats: int, echo: Callable[[str], object]) -> None:
    """A table of ours and the peers; arms interleaved, medians.

    Raises:
        PlatformError: an arm gives other values.
    """
    with tempfile.TemporaryDirectory(prefix="ml_platform_bench_") as name:
        folder = Path(name)
        run_arm(_ARM, "make", name, str(events), str(questions))
        answers = {arm: folder / f"{arm}.answer.parquet" for arm in (OURS, *PEERS)}
        for arm, path in answers.items():
            run_arm(_ARM, arm, name, str(path))
        right = pl.read_parquet(answers[OURS])
        for arm in PEERS:
            if not pl.read_parquet(answers[arm]).equals(right):
                raise PlatformError(f"{arm} gives other values than ours; nothing was timed")
        runs: dict[str, list[ArmRun]] = {arm: [] for arm in answers}
        for _ in range(repeats):
            for arm, some in runs.items():
                some.append(run_arm(_ARM, arm, name))
    _heading(events, questions, echo)
    echo(f"  all {right.height * len(right.columns):,} answers equal; at most {SHARE:.2f} of rolling_sum_by wanted")
    base = median(run.said["seconds"] for run in runs[PEERS[0]])
    for arm, some in runs.items():
        _line(arm, some, echo, base)


def alone(events: int, questions: int, echo: Callable[[str], object]) -> None:
    """Ours at a size at which it must not need too much memory."""
    with tempfile.TemporaryDirectory(prefix="ml_platform_bench_") as name:
        run_arm(_ARM, "make", name, str(events), str(questions))
        run = run_arm(_ARM, OURS, name)
    _heading(events, questions, echo)
    echo(f"  peak within {LARGEST_GB} GB wanted, the frames of events and questions included")
    _line(OURS, [run], echo)


def _heading(events: int, questions: int, echo: Callable[[str], object]) -> None:
    echo(
        f"{events:,} events of {ENTITIES:,} entities in a year, {questions:,} questions, {len(KINDS)} aggregates over "
        f"{len(SPANS)} windows ({', '.join(SPANS)})"
    )


def _line(arm: str, runs: list[ArmRun], echo: Callable[[str], object], base: float | None = None) -> None:
    seconds, cpu = (median(run.said[what] for run in runs) for what in ("seconds", "cpu"))
    share = f"{seconds / base:6.2f} of rolling_sum_by" if base else ""
    peak = max(run.peak_mb for run in runs) / 1024
    echo(f"  {arm:16}{seconds:8.2f} s{cpu:8.2f} s CPU{peak:8.2f} GB peak  {share}")


def measure(quick: bool = False, echo: Callable[[str], object] = click.echo) -> None:
    """Both tables. ``quick``: small and once, to see that it works, not to quote."""
    echo(f"{machine(['polars', 'numpy'])}; load of the last minute {os.getloadavg()[0]:.1f}")
    if quick:
        compared(50_000, 5_000, 1, echo)
        return
    compared(3_000_000, 336_000, _REPEATS, echo)
    alone(30_000_000, 336_000, echo)


if __name__ == "__main__":
    measure("--quick" in sys.argv)
