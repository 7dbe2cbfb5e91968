"""Simulated latencies and losses for `ml-platform bench rollout`, by the functions that a service counts with."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from ml_platform.bench.rollout_runs import reaches
from ml_platform.serving.eprocess import (
    BETS,
    ODDS,
    Floats,
    levels_before,
    odds_sums,
    paired_differences,
    weighted_differences,
)
from ml_platform.serving.recent import EVERY, QUANTILES, WINDOW, champion_quantiles

_RUNS_AT_ONCE = 50
_PIECE = 50  # units between two looks at which runs that have ended are left out
BETA = (0.9, 3.0)  # probabilities of a calibrated model with 23 % ones, as the shipped project has: Brier score .141
SHARP = (0.3, 3.0)  # a surer one with 9 % ones: Brier score .063
WORSE = {BETA: 0.1610, SHARP: 0.1830}  # spread of noise on its probabilities that adds .02 to the Brier score


def latency_requests(
    *, times: float, requests: int, runs: int, spread: float, alpha: float, chance: Generator, share: float = 0.1
) -> Floats:
    """(runs,): canary requests until the rollback, infinite if none. Looked at as often as quantiles are made.

    Seconds are lognormal with so much spread of the logarithm, the canary's ``times`` as long; all of them wander by
    a quarter in the course of the run.
    """
    found = []
    for start in range(0, runs, _RUNS_AT_ONCE):
        found.append(_latencies(times, requests, min(_RUNS_AT_ONCE, runs - start), spread, alpha, chance, share))
    return np.concatenate(found)


def _latencies(
    times: float, requests: int, runs: int, spread: float, alpha: float, chance: Generator, share: float
) -> Floats:
    until, going, canaries = np.full(runs, np.inf), np.arange(runs), np.zeros(runs)
    seconds, champion = np.empty((runs, 0)), np.empty((runs, 0), dtype=bool)
    sums = np.zeros((runs, len(QUANTILES) * len(ODDS)))
    for place in range(0, requests, EVERY):
        shape, level = (len(going), EVERY), 1 + 0.25 * np.sin(2 * np.pi * place / requests)
        mine = chance.random(shape) < share
        took = level * np.exp(spread * chance.standard_normal(shape)) * np.where(mine, times, 1.0)
        canaries = canaries + mine.sum(axis=1)
        if place:
            slower = took[:, :, None] > champion_quantiles(seconds, champion)[:, None]
            added = odds_sums((slower & mine[:, :, None]).sum(axis=1), slower.sum(axis=1), np.array([share]))
            sums = sums + added.reshape(sums.shape)
        ends = reaches(sums, alpha)
        until[going[ends]] = canaries[ends]
        kept = slice(-(WINDOW - EVERY), None)
        seconds = np.concatenate([seconds[:, kept], took], axis=1)[~ends]
        champion = np.concatenate([champion[:, kept], ~mine], axis=1)[~ends]
        going, canaries, sums = going[~ends], canaries[~ends], sums[~ends]
    return until


Losses = Callable[[Generator, tuple[int, int]], tuple[Floats, Floats]]


def briers(sure: tuple[float, float], *, worse: bool) -> Losses:
    """Draws (champion's, canary's) Brier losses of the same rows: a calibrated model, and it again or a noisier one."""

    def draw(chance: Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        given = chance.beta(*sure, shape)
        truth = chance.random(shape) < given
        # Equal on average is not equal on every row: an equal canary errs by other noise of the same size.
        noise = WORSE[sure] if worse else 0.05
        other = np.clip(given + noise * chance.standard_normal(shape), 0, 1)
        mine = given if worse else np.clip(given + noise * chance.standard_normal(shape), 0, 1)
        return (truth - mine) ** 2, (truth - other) ** 2

    return draw


def labels_until(
    losses: Losses,
    *,
    labels: int,
    runs: int,
    alpha: float,
    chance: Generator,
    share: float | None,
    margin: float | None = None,
) -> Floats:
    """(runs,): labelled canary requests until E reaches 1/alpha, infinite if it does not; looked at after every label.

    share: of the canary where each row is answered by one side; None where both scored each row (a shadow).
    margin: None for the rollback, or that of the promotion.
    """
    return np.concatenate(
        [
            _labels(losses, labels, min(_RUNS_AT_ONCE, runs - start), alpha, chance, share, margin)
            for start in range(0, runs, _RUNS_AT_ONCE)
        ]
    )


def _labels(
    losses: Losses,
    labels: int,
    runs: int,
    alpha: float,
    chance: Generator,
    share: float | None,
    margin: float | None,
) -> Floats:
    until, going = np.full(runs, np.inf), np.arange(runs)
    sums, canaries, before = np.zeros((runs, len(BETS))), np.zeros(runs), np.zeros(runs)
    for place in range(0, labels, _PIECE):
        shape = (len(going), _PIECE)
        champion, canary = losses(chance, shape)
        if share is None:
            mine = np.ones(shape, dtype=bool)
            found = paired_differences(canary, champion)
        else:
            mine = chance.random(shape) < share
            values = np.where(mine, canary, champion)
            found = weighted_differences(values, mine, np.array([share]), levels_before(values, before, place))
            before = before + values.sum(axis=1)
        steps = found.against_at_most(0.0) if margin is None else found.against_at_least(margin)
        run = sums[:, None] + np.cumsum(steps, axis=1)
        reached = reaches(run, alpha)
        answered = canaries[:, None] + np.cumsum(mine, axis=1)
        ends = reached.any(axis=1)
        until[going[ends]] = answered[ends, reached.argmax(axis=1)[ends]]
        going, sums, canaries, before = going[~ends], run[~ends, -1], answered[~ends, -1], before[~ends]
    return until
