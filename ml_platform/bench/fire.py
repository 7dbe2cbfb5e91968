"""`ml-platform bench fire`: a service under fire. Versions exchanged, workers ended and killed, all under load.

Every question has an id of its own; what became of each is looked up in the log, and every probability is computed
again by the version that its answer names.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from ml_platform.bench.arms import machine
from ml_platform.bench.fire_drills import Account, kills, restarts, swaps
from ml_platform.bench.fire_retraining import retraining
from ml_platform.bench.fire_shadow import Turns, shadow
from ml_platform.bench.fire_wal import memory, wal
from ml_platform.bench.fire_world import FireWorld, fire_world

_MOST_SWAP_SECONDS, _MOST_CPU, _MOST_P99, _MOST_SLOPE = 2.0, 1.05, 1.20, 0.5
_MEMORY_RATE = 1000  # questions a second
_PARTS = ("swaps", "restarts", "kills", "shadow", "retraining", "memory", "wal")
Echo = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything; ``quick`` is to see that it works, not to quote."""

    swaps: int = 200
    ended: int = 20
    replaced: int = 5
    kills: int = 100
    rounds: int = 7
    seconds: float = 5.0
    minutes: float = 10.0
    records: int = 20_000


QUICK = Size(swaps=8, ended=2, replaced=1, kills=4, rounds=1, seconds=2.0, minutes=0.5, records=2_000)


def bar(echo: Echo, what: str, figure: str, wanted: str, met: bool) -> None:
    """A line; SHORT where the bar is not met."""
    echo(f"  {what:58}{figure:>28}  {wanted}{'' if met else '  SHORT'}")


def _accounted(echo: Echo, found: Account, *, none_fails: bool) -> None:
    if none_fails:
        bar(
            echo,
            f"questions without an answer, of {found.answered + found.failed:,}",
            f"{found.failed}",
            "0",
            not found.failed,
        )
    else:
        echo(f"  {found.failed} of {found.answered + found.failed:,} questions broke off with the worker that had them")
    bar(echo, "answers that are not in the log as they were given", f"{found.lost}", "0", not found.lost)
    bar(echo, "records that stand twice in the log", f"{found.doubled}", "0", not found.doubled)
    bar(echo, "answers that are not the named version's, to the bit", f"{found.wrong}", "0", not found.wrong)
    for reason in found.reasons if none_fails else ():
        echo(f"    {reason}")


def _swaps(world: FireWorld, size: Size, echo: Echo) -> None:
    found = swaps(world, size.swaps)
    echo(f"{found.swaps} changes of who answers under load, {found.workers} workers: promotions and steps of rollouts")
    _accounted(echo, found.account, none_fails=True)
    settled = found.longest <= _MOST_SWAP_SECONDS and not found.unsettled
    bar(
        echo,
        "a question still answered as before, at most after",
        f"{found.longest:.2f} s",
        f"{_MOST_SWAP_SECONDS:g} s",
        settled,
    )
    refused = found.refused_by == found.workers
    bar(
        echo,
        "workers that refused a broken version; the old one stayed",
        f"{found.refused_by}",
        f"{found.workers}",
        refused,
    )


def _restarts(world: FireWorld, size: Size, echo: Echo) -> None:
    for workers in (2, 1):
        found = restarts(world, size.ended, size.replaced, workers=workers)
        echo(
            f"{found.ended} workers ended by SIGTERM under load and {found.replaced} SIGHUP that replace all; "
            f"{workers} at a time; slowest answer {found.slowest:.2f} s"
        )
        _accounted(echo, found.account, none_fails=True)


def _kills(world: FireWorld, size: Size, echo: Echo) -> None:
    found = kills(world, size.kills)
    echo(
        f"{found.kills} workers of 2 killed with -9 under load and started again; {found.torn} files end in a torn line"
    )
    _accounted(echo, found.account, none_fails=False)


def _memory(world: FireWorld, size: Size, echo: Echo) -> None:
    found = memory(world, size.minutes, _MEMORY_RATE)
    echo(
        f"memory of a worker over {found.minutes:g} minutes, {found.answered:,} answers, {found.failed} failed: "
        f"{found.first:.1f} MB at a quarter of the time, {found.last:.1f} MB at the end"
    )
    bar(echo, "slope", f"{found.slope:+.3f} MB/minute", f"at most {_MOST_SLOPE:g}", found.slope <= _MOST_SLOPE)


def _wal(_: FireWorld, size: Size, echo: Echo) -> None:
    found = wal(size.records)
    by_batch = ", ".join(f"{micros:.1f} ({batch} at once)" for batch, micros in found.micros.items())
    echo(f"a record of the prediction log, 30 features: {found.bytes:.0f} bytes, microseconds of CPU {by_batch}")


def _shadow(_: FireWorld, size: Size, echo: Echo) -> None:
    found = shadow(size.seconds, size.rounds)
    _turns(echo, "shadow on all traffic", found)
    echo(f"  {found.seen:.0%} of the answers asked about by the end of their turn")
    cheap = found.cpu <= _MOST_CPU
    bar(echo, "CPU of the serving worker an answer, times", f"{found.cpu:.3f}", f"at most {_MOST_CPU:g}", cheap)
    bar(echo, "p99, times", f"{found.p99:.3f}", f"at most {_MOST_P99:g}", found.p99 <= _MOST_P99)


def _retraining(_: FireWorld, size: Size, echo: Echo) -> None:
    found = retraining(size.seconds, size.rounds)
    _turns(echo, "a retraining that gives way, on the same cores,", found)
    bar(echo, "p99, times", f"{found.p99:.3f}", f"at most {_MOST_P99:g}", found.p99 <= _MOST_P99)


def _turns(echo: Echo, what: str, found: Turns) -> None:
    cpu, p99 = (
        [median(getattr(t, figure) for t in some) for some in (found.without, found.beside)]
        for figure in ("cpu_us", "p99_ms")
    )
    echo(
        f"{what} at {found.rate:,.0f} questions/s (30 % of the most), {len(found.beside)} turns each: CPU {cpu[0]:.0f} "
        f"and {cpu[1]:.0f} us an answer, p99 {p99[0]:.2f} and {p99[1]:.2f} ms without and with"
    )


_DRILLS: Mapping[str, Callable[[FireWorld, Size, Echo], None]] = {
    "swaps": _swaps,
    "restarts": _restarts,
    "kills": _kills,
    "shadow": _shadow,
    "retraining": _retraining,
    "memory": _memory,
    "wal": _wal,
}


def measure(size: Size, parts: tuple[str, ...] = _PARTS, *, echo: Echo = click.echo) -> None:
    """The parts, one after the other, each on a state folder of its own."""
    echo(f"{machine(['lightgbm', 'bentoml', 'uvicorn'])}; load {os.getloadavg()[0]:.1f}")
    for part in parts:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="ml_platform_fire_") as folder, fire_world(Path(folder)) as world:
            _DRILLS[part](world, size, echo)
        echo(f"  ({time.monotonic() - began:.0f} s; load {os.getloadavg()[0]:.1f})")


@click.command()
@click.option("--only", type=click.Choice(_PARTS), multiple=True, help="One drill; may be given several times.")
@click.option("--minutes", type=click.FloatRange(0.1), help="How long memory is watched.  [default: 10]")
@click.option("--quick", is_flag=True, help="A little of everything: to see that it works, not to quote.")
def main(only: tuple[str, ...], minutes: float | None, quick: bool) -> None:
    """Serving under fire: nothing lost, doubled or wrong while versions are exchanged and workers end or are killed."""
    from dataclasses import replace

    size = QUICK if quick else Size()
    measure(replace(size, minutes=minutes) if minutes else size, only or _PARTS)


if __name__ == "__main__":
    main()
