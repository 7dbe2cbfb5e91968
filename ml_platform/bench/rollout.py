"""`ml-platform bench rollout`: how often equal canaries are rolled back, and how soon worse ones are stopped.

Run it: ``python -m ml_platform.bench.rollout``. Simulated rollouts go through the very functions that a service counts
with; pooled tests see the same rollouts beside them. Every share has its exact binomial 90 % interval.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import numpy as np
from numpy.random import Generator

from ml_platform.bench.arms import machine
from ml_platform.bench.rollout_ab import split_alarms, watched_intervals
from ml_platform.bench.rollout_figures import Figure, median_of, share_of
from ml_platform.bench.rollout_peers import PEERS
from ml_platform.bench.rollout_runs import Traffic, crossings, requests_until, simulated
from ml_platform.bench.rollout_values import BETA, SHARP, briers, labels_until, latency_requests
from ml_platform.serving.eprocess import Floats

SEED = 20260101
ALPHA, RUNS = 0.05, 2000
MARGIN = 1.5  # on odds: of the promotion on errors
LOSS_MARGIN = 0.02  # of the promotion on the Brier score
SPREAD = 0.5  # of the logarithm of seconds: p99 is 3.2 times p50
_OURS = "e-process, at every error"
_RETRIES = 4  # a failed request is tried again up to so often, and fails again with:
_FAILS_AGAIN = 0.7
# share of the canary (None: both scored each row), and how many labels an equal and a worse canary are followed for
_FORMS = ((None, "shadow pairs", 2000, 3000), (0.1, "apart, 10 %", 5000, 12_000))
SCENARIOS = {
    "no difference": Traffic.steady(requests=200_000),
    "ramp, errors rise": Traffic.ramp(requests=200_000, first=0.005, last=0.02),
    "ramp, errors fall": Traffic.ramp(requests=200_000, first=0.02, last=0.005),
    "the same, x1.5": Traffic.ramp(requests=200_000, first=0.02, last=0.005, times=1.5),
    "x1.5": Traffic.steady(requests=200_000, times=1.5),
    "x2": Traffic.steady(requests=60_000, times=2),
    "x5": Traffic.steady(requests=60_000, times=5),
}
_EQUAL = ("no difference", "ramp, errors rise", "ramp, errors fall")


def errors(runs: int, chance: Generator) -> tuple[dict[str, dict[str, Floats]], dict[str, Floats]]:
    """Canary requests until each test rolls back, and until ours promotes, (runs,) by scenario."""
    back: dict[str, dict[str, list[Floats]]] = {name: {} for name in SCENARIOS}
    on: dict[str, list[Floats]] = {name: [] for name in SCENARIOS}
    for name, traffic in SCENARIOS.items():
        for some in simulated(traffic, runs, chance):
            ours = requests_until(some, crossings(some, alpha=ALPHA))
            found = {_OURS: ours} | {peer: requests_until(some, test(some)) for peer, test in PEERS.items()}
            for test_name, until in found.items():
                back[name].setdefault(test_name, []).append(until)
            promoted = requests_until(some, crossings(some, alpha=ALPHA, against=MARGIN))
            on[name].append(np.where(promoted < ours, promoted, np.inf))  # whoever is rolled back is not promoted
    together = {name: {test: np.concatenate(parts) for test, parts in found.items()} for name, found in back.items()}
    return together, {name: np.concatenate(parts) for name, parts in on.items()}


def table(back: dict[str, dict[str, Floats]]) -> Iterator[str]:
    """Share rolled back, and the median canary requests until then where most are, of each test and scenario."""
    yield f"{'rolled back (median canary requests)':38}{''.join(f'{name:>20}' for name in SCENARIOS)}"
    for test in (_OURS, *PEERS):
        cells = []
        for name in SCENARIOS:
            until = back[name][test]
            middle = float(np.sort(until)[(len(until) - 1) // 2])
            cells.append(f"{np.isfinite(until).mean():.1%}" + (f" ({middle:,.0f})" if np.isfinite(middle) else ""))
        yield f"  {test:36}{''.join(f'{cell:>20}' for cell in cells)}"


def error_figures(back: dict[str, dict[str, Floats]], on: dict[str, Floats]) -> Iterator[Figure]:
    """Ours, against the bars."""
    for name in _EQUAL:
        yield share_of(f"rolled back, {name}", np.isfinite(back[name][_OURS]), bar=0.05)
    yield median_of("canary requests until errors x2 are stopped", back["x2"][_OURS], bar=1300)
    yield median_of("canary requests until errors x5 are stopped", back["x5"][_OURS], bar=200)
    equal, worse = on["no difference"], on["x1.5"]
    yield share_of(f"promoted at a margin of {MARGIN}, equal", np.isfinite(equal), bar=0.97, at_least=True)
    yield median_of("canary requests until it is", equal)
    yield share_of(f"promoted at a margin of {MARGIN}, errors x1.5", np.isfinite(worse), bar=0.05)
    for name in _EQUAL[1:]:
        yield share_of(f"promoted, equal, {name}", np.isfinite(on[name]))


def retry_figures(runs: int, chance: Generator) -> Iterator[Figure]:
    """An equal canary whose failed requests are tried again, with and without the rule of the first event."""
    with_rule, without = [], []
    for some in simulated(SCENARIOS["no difference"], runs, chance):
        again = np.minimum(chance.geometric(1 - _FAILS_AGAIN, some.there.shape) - 1, _RETRIES)
        with_rule.append(crossings(some, alpha=ALPHA) >= 0)
        without.append(crossings(some, alpha=ALPHA, sizes=some.there * (1 + again)) >= 0)
    yield share_of("rolled back, equal, retries, first event of a unit", np.concatenate(with_rule), bar=0.05)
    yield share_of("  the same if each retry counted", np.concatenate(without))


def latency_figures(runs: int, chance: Generator) -> Iterator[Figure]:
    """Lognormal seconds that wander for everybody."""
    for times, requests in ((1.0, 15_000), (1.1, 30_000)):
        until = latency_requests(
            times=times, requests=requests, runs=runs, spread=SPREAD, alpha=ALPHA, chance=chance, share=0.1
        )
        if times == 1:
            yield share_of("rolled back for its seconds, equal, everybody's wander", np.isfinite(until), bar=0.05)
        else:
            yield median_of("canary requests until +10 % seconds are stopped", until, bar=1500)


def loss_figures(runs: int, chance: Generator) -> Iterator[Figure]:
    """Brier scores of a calibrated model, in pairs and apart."""
    for sure, who in ((BETA, "Brier .141"), (SHARP, "Brier .063")):
        for share, form, equal_labels, worse_labels in _FORMS:
            kept: dict[str, Any] = {"runs": runs, "alpha": ALPHA, "chance": chance, "share": share}
            back = labels_until(briers(sure, worse=False), labels=equal_labels, **kept)
            yield share_of(f"rolled back for its loss, equal, {who}, {form}", np.isfinite(back), bar=0.05)
            until = labels_until(briers(sure, worse=True), labels=worse_labels, **kept)
            yield median_of(f"labelled canary requests until +.02 is stopped, {who}, {form}", until, bar=700)
    paired: dict[str, Any] = {
        "labels": 3000,
        "runs": runs,
        "alpha": ALPHA,
        "chance": chance,
        "share": None,
        "margin": LOSS_MARGIN,
    }
    equal = labels_until(briers(BETA, worse=False), **paired)
    yield share_of(
        "promoted for its loss at a margin of .02, equal, shadow pairs", np.isfinite(equal), bar=0.97, at_least=True
    )
    worse = labels_until(briers(BETA, worse=True), **paired)
    yield share_of("promoted for its loss at a margin of .02, worse by that", np.isfinite(worse), bar=0.05)


def ab_figures(runs: int, chance: Generator) -> Iterator[Figure]:
    """Intervals watched after every unit, for binary and skewed metrics, and the check of the split."""
    for case in watched_intervals(runs, ALPHA, chance):
        yield share_of(f"interval ever misses, {case.name}", case.missed, bar=0.05)
        yield share_of("  a normal interval looked at as often", case.missed_by_normal)
        yield median_of("  width at the end, in % of the normal interval's", 100 * case.width_ratio)
    for what, alarmed, right in split_alarms(runs, chance):
        yield share_of(f"split found wrong, {what}", alarmed, bar=0.05 if right else None)


def measure(*, quick: bool = False, echo: Callable[[str], object] = click.echo) -> list[Figure]:
    """Everything. ``quick``: a fiftieth of the runs, to see that it works, not to quote."""
    runs, chance, found = RUNS // 50 if quick else RUNS, np.random.default_rng(SEED), []
    echo(f"{machine(['numpy'])}; {runs:,} runs of each, alpha {ALPHA}")
    echo("errors: base 1 % (ramp: 0.5 to 2 % or back), 10 % canary (ramp: 1, 5, 25, 50 %)")
    began = time.perf_counter(), time.process_time()
    back, on = errors(runs, chance)
    for line in table(back):
        echo(line)
    parts = (retry_figures, latency_figures, loss_figures, ab_figures)
    for figures in (error_figures(back, on), *(part(runs, chance) for part in parts)):
        for figure in figures:
            echo(figure.line())
            found.append(figure)
    short = [figure.what for figure in found if figure.short]
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    echo(f"{wall:.0f} s, {cpu:.0f} s CPU; {f'SHORT: {len(short)}' if short else 'no figure is short of its bar'}")
    return found


@click.command()
@click.option("--quick", is_flag=True, help="A fiftieth of the runs: to see that it works, not to quote.")
def main(quick: bool) -> None:
    """Rollouts: false rollbacks and promotions, requests until a worse canary is stopped, beside pooled tests."""
    measure(quick=quick)


if __name__ == "__main__":
    main()
