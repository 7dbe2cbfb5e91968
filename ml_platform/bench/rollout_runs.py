"""Simulated rollouts for `ml-platform bench rollout`, by the very functions that a service counts with.

All draws of a scenario come from one seed. Errors are looked at after every single one; time is counted in cells of
100 requests, rounded up to the end of the cell.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ml_platform.serving.eprocess import ODDS, Floats, below, log_bar, log_mean, odds_sums

CELL = 100  # requests
_RUNS_AT_ONCE = 100
_PIECE = 250  # events between two looks at which runs that have ended are left out: 8 MB of log-sums
NEVER = -1

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What happens in each cell: the canary's share, and both sides' error rates; arrays (cells,)."""

    share: Floats
    champion: Floats
    canary: Floats

    @classmethod
    def steady(cls, *, requests: int, share: float = 0.1, base: float = 0.01, times: float = 1.0) -> "Traffic":
        """One share and one error rate throughout; the canary's is ``times`` as high."""
        cells = requests // CELL
        champion = np.full(cells, base)
        return cls(share=np.full(cells, share), champion=champion, canary=champion * times)

    @classmethod
    def ramp(cls, *, requests: int, first: float, last: float, times: float = 1.0) -> "Traffic":
        """1, 5, 25, 50 % of the traffic, a quarter of the time each; everybody's error rate goes from first to last."""
        cells = requests // CELL
        champion = np.linspace(first, last, cells)
        return cls(
            share=np.repeat([0.01, 0.05, 0.25, 0.5], -(-cells // 4))[:cells], champion=champion, canary=champion * times
        )


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Simulated rollouts. Cells: (runs, cells) requests and bad ones of both sides. Events: (runs, most), padded.

    mine: 1 where a bad event was the canary's; there: 1 where there is an event; cell: in which it was; stage: the
    place of its share among the shares that occur.
    """

    traffic: Traffic
    canary_requests: Ints
    canary_bad: Ints
    all_bad: Ints
    mine: Ints
    there: Floats
    cell: Ints
    stage: Ints


def simulated(traffic: Traffic, runs: int, chance: Generator) -> Iterator[Runs]:
    """So many runs, in blocks."""
    for start in range(0, runs, _RUNS_AT_ONCE):
        yield _block(traffic, min(_RUNS_AT_ONCE, runs - start), chance)


def _block(traffic: Traffic, runs: int, chance: Generator) -> Runs:
    share, cells = traffic.share, len(traffic.share)
    mine, theirs = share * traffic.canary, (1 - share) * traffic.champion
    bad = chance.binomial(CELL, mine + theirs, (runs, cells))
    whose = np.repeat(np.arange(runs * cells), bad.ravel())  # the run and cell of each bad event
    is_canary = chance.random(whose.size) < (mine / (mine + theirs))[whose % cells]
    canary_bad = np.bincount(whose, weights=is_canary, minlength=runs * cells).reshape(runs, cells).astype(np.int64)
    good = share * (1 - traffic.canary) / (1 - mine - theirs)
    requests = canary_bad + chance.binomial(CELL - bad, good)
    events = bad.sum(axis=1)
    run, first = whose // cells, np.cumsum(events) - events
    place = np.arange(whose.size) - first[run]
    padded = np.zeros((3, runs, int(events.max(initial=1))))
    padded[:, run, place] = np.stack([is_canary, np.ones(whose.size), whose % cells])
    cell = padded[2].astype(np.int64)
    return Runs(
        traffic=traffic,
        canary_requests=np.cumsum(requests, axis=1),
        canary_bad=np.cumsum(canary_bad, axis=1),
        all_bad=np.cumsum(bad, axis=1),
        mine=padded[0].astype(np.int64),
        there=padded[1],
        cell=cell,
        stage=np.unique(share, return_inverse=True)[1][cell],
    )


def crossings(runs: Runs, *, alpha: float, against: float | None = None, sizes: Floats | None = None) -> Ints:
    """(runs,): the cell in which E reached 1/alpha, looked at after every event; NEVER where it did not.

    against: None for the rollback, or the margin of the promotion. sizes: how often each event is counted (retries).
    """
    steps = _steps(runs, against)
    cells, going = np.full(len(runs.mine), NEVER), np.arange(len(runs.mine))
    sums = np.zeros((len(going), steps.shape[-1]))
    for start in range(0, runs.mine.shape[1], _PIECE):
        here = (going, slice(start, start + _PIECE))
        added = steps[runs.stage[here], runs.mine[here]] * (runs.there if sizes is None else sizes)[here][..., None]
        run = sums[:, None] + np.cumsum(added, axis=1)
        reached = reaches(run, alpha)
        ends = reached.any(axis=1)
        cells[going[ends]] = runs.cell[here][ends, reached.argmax(axis=1)[ends]]
        going, sums = going[~ends], run[~ends, -1]
    return cells


def _steps(runs: Runs, against: float | None) -> Floats:
    """(stages, 2, odds): what an event of the champion, or of the canary, adds in a stage of one share."""
    shares = np.unique(runs.traffic.share)[:, None]
    odds = ODDS if against is None else below(against)
    return odds_sums(np.array([0.0, 1.0]), np.ones(2), shares, odds=odds, against=against or 1.0)


def reaches(sums: Floats, alpha: float) -> NDArray[np.bool_]:
    """(...): whether E of log-sums (..., grid) is at least 1/alpha; the mean is only taken where it can be."""
    bar = log_bar(alpha)
    reached: NDArray[np.bool_] = sums.max(axis=-1) >= bar  # no mean is above its largest
    reached[reached] = log_mean(sums[reached]) >= bar
    return reached


def requests_until(runs: Runs, cells: Ints) -> Floats:
    """(runs,): how many requests the canary had answered at the end of these cells; infinite for NEVER."""
    found = np.take_along_axis(runs.canary_requests, np.maximum(cells, 0)[:, None], 1)[:, 0]
    until: Floats = np.where(cells == NEVER, np.inf, found)
    return until
