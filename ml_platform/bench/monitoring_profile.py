"""A day's profile and its comparison with the reference, against scipy column by column and Evidently's preset."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from ml_platform.bench.arms import ArmRun, machine, run_arm
from ml_platform.bench.monitoring_profile_arm import ARMS
from ml_platform.spec import PlatformError

_ARM = "ml_platform.bench.monitoring_profile_arm"
_COLUMNS = 30
_REPEATS = 3
_AIMS = {"ks_2samp": 4, "evidently": 40}
_MOST_MEMORY = 1.5  # of the frame's size
_SMALL_MB = 200


def measure(*, quick: bool, echo: Callable[[str], object]) -> None:
    """Print processor time and memory of each arm, in a process of its own, interleaved; Evidently, which takes a
    minute, runs once.

    Raises:
        PlatformError: an arm failed, or the distances are not between their bounds.
    """
    rows = 100_000 if quick else 1_000_000
    echo(machine(["polars", "numpy", "scipy", "evidently"]))
    echo(f"profile: a day of {rows:,} rows x {_COLUMNS} columns against its reference; processor time, medians")
    runs: dict[str, list[ArmRun]] = {arm: [] for arm in ARMS}
    for turn in range(_REPEATS):
        for arm in ARMS if turn == 0 else ARMS[:-1]:
            runs[arm].append(run_arm(_ARM, arm, str(rows), str(_COLUMNS)))
    echo(f"distances are scipy's: at most {refuse_other(runs):.1e} below, and within their bounds in every column")
    _show(runs, echo)


def refuse_other(runs: Mapping[str, Sequence[ArmRun]]) -> float:
    """By how much a distance at the edges is below the exact one, at most.

    Raises:
        PlatformError: an exact distance does not lie between its bounds.
    """
    bounds, exact = (runs[arm][0].said["answer"] for arm in ARMS[:2])
    for name, distance in exact.items():
        least, most = bounds[name]
        if not least - 1e-12 <= distance <= most + 1e-12:
            raise PlatformError(
                f"scipy finds {distance:.6f} in {name}, but the profiles say that it lies between {least:.6f} and "
                f"{most:.6f}; nothing was measured"
            )
    return float(max(distance - bounds[name][0] for name, distance in exact.items()))


def _show(runs: Mapping[str, Sequence[ArmRun]], echo: Callable[[str], object]) -> None:
    seconds = {arm: median(run.said["seconds"] for run in done) for arm, done in runs.items()}
    own = seconds["profile"]
    for arm, done in runs.items():
        aim = f"  {seconds[arm] / own:5.1f}x ours (aim: {_AIMS[arm]}x)" if arm in _AIMS else ""
        peak = median(run.said["peak_mb"] for run in done)
        echo(f"  {arm:<12}{seconds[arm]:8.2f} s {peak:8.0f} MB{aim}")
    told = runs["profile"][0].said
    share, added = told["peak_mb"] / told["frame_mb"], told["peak_mb"] - told["peak_before_mb"]
    # Python and its libraries take a hundred megabytes, whatever is profiled.
    aim = f"aim: below {_MOST_MEMORY}" if told["frame_mb"] > _SMALL_MB else "of so small a frame it says nothing"
    echo(
        f"  memory: the frame is {told['frame_mb']:.0f} MB, the process at most {share:.2f} times that with Python and "
        f"all libraries ({aim}); profiling added {added:.1f} MB"
    )
