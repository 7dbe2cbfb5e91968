"""`ml-platform bench training`: our training beside LightGBM called bare on the same matrix, and the network's input.

Run it: ``python -m ml_platform.bench.training``. Each arm runs in a process of its own, from data in memory to the
booster; the trees of all arms are compared, to the letter, before anything is timed.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click

from ml_platform.bench.arms import ArmRun, machine, run_arm
from ml_platform.bench.training_arm import ARMS, BATCH_ROWS, CATEGORIES, NUMBERS
from ml_platform.spec import PlatformError

_ARM = "ml_platform.bench.training_arm"
_OURS, _BARE = "ours", "bare"
MOST_TIMES, LEAST_ROWS = 1.15, 1_000_000  # the bars: of the bare training's time, and rows/s that a network is fed with


def compared(rows: int, rounds: int, repeats: int, echo: Callable[[str], object]) -> None:
    """A table of ours and LightGBM called bare; arms interleaved, medians.

    Raises:
        PlatformError: an arm grows other trees.
    """
    with tempfile.TemporaryDirectory(prefix="ml_platform_bench_") as name:
        run_arm(_ARM, "make", name, str(rows))
        grown = {arm: Path(name) / f"{arm}.txt" for arm in ARMS}
        for arm, path in grown.items():
            run_arm(_ARM, arm, name, str(rounds), str(path))
        for arm, path in grown.items():
            if path.read_text() != grown[_BARE].read_text():
                raise PlatformError(f"{arm} grows other trees than LightGBM called bare; nothing was timed")
        runs: dict[str, list[ArmRun]] = {arm: [] for arm in ARMS}
        for _ in range(repeats):
            for arm, some in runs.items():
                some.append(run_arm(_ARM, arm, name, str(rounds)))
        echo(
            f"{rows:,} rows of {len(CATEGORIES)} categories and {NUMBERS} numbers, {rounds} rounds of 63 leaves: trees "
            f"equal; at most {MOST_TIMES} of bare wanted"
        )
        base = median(run.said["seconds"] for run in runs[_BARE])
        for arm, some in runs.items():
            _line(arm, some, base, echo)


def fed(rows: int, repeats: int, echo: Callable[[str], object]) -> None:
    """How quickly a network is fed from a frame of so many rows, medians."""
    with tempfile.TemporaryDirectory(prefix="ml_platform_bench_") as name:
        run_arm(_ARM, "make", name, str(rows))
        runs = [run_arm(_ARM, "network", name).said for _ in range(repeats)]
    echo(f"network: {rows:,} rows, shuffled batches of {BATCH_ROWS}; at least {LEAST_ROWS:,} rows/s wanted")
    for title, what in (("frame to tensors, once", "converted"), ("batches of an epoch", "epoch")):
        seconds, cpu = (median(said[name] for said in runs) for name in (what, f"{what}_cpu"))
        echo(f"  {title:24}{rows / seconds:14,.0f} rows/s{rows / cpu:14,.0f} a CPU second")


def _line(arm: str, runs: list[ArmRun], base: float, echo: Callable[[str], object]) -> None:
    seconds, cpu = (median(run.said[what] for run in runs) for what in ("seconds", "cpu"))
    before, peak = (median(run.said[what] for run in runs) / 1024 for what in ("before_mb", "peak_mb"))
    memory = f"{before:6.2f} GB before, {peak - before:+.2f} GB at its peak"
    echo(f"  {arm:18}{seconds:8.2f} s{cpu:9.2f} s CPU  {memory}{seconds / base:8.2f} of bare")


def measure(*, quick: bool = False, echo: Callable[[str], object] = click.echo) -> None:
    """All tables. ``quick``: small and once, to see that it works, not to quote."""
    echo(f"{machine(['lightgbm', 'polars', 'torch', 'numpy'])}; load of the last minute {os.getloadavg()[0]:.1f}")
    if quick:
        compared(5_000, 5, 1, echo)
        fed(20_000, 1, echo)
        return
    compared(336_000, 100, 5, echo)
    compared(5_000_000, 10, 3, echo)
    fed(1_000_000, 5, echo)


@click.command()
@click.option("--quick", is_flag=True, help="Small and once: to see that it works, not to quote.")
def main(quick: bool) -> None:
    """Training: equal trees first, then seconds and memory beside LightGBM called bare; the network's input."""
    measure(quick=quick)


if __name__ == "__main__":
    main()
