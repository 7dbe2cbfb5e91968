"""What answers cost: the time of single rows, and the time of reading online what they are made of."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from time import perf_counter
from typing import Any

import polars as pl

from ml_platform.training.model import Model

_WARM_UP, _TIMED = 5, 100
_TURNS = 5  # the quickest of as many is what a read takes when nothing comes between
Read = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class OnlineReads:
    """How the service reads what some questions are answered from, in the store that it reads.

    of: for a model's inputs one read a question, the same questions in the same order whatever the inputs; a read
        answers the inputs' values. looked_up: those inputs that a store holds. told: which questions, in words.
    """

    of: Callable[[Sequence[str]], Sequence[Read]]
    looked_up: Collection[str]
    told: str


def latency_ms(model: Model, rows: pl.DataFrame) -> list[float]:
    """Milliseconds that the model takes for one row, of a hundred rows at equal distances, features at hand.

    rows: at least one, with the model's inputs.
    """
    inputs = rows.select(model.encoding.inputs)
    chosen = [inputs.row(number * inputs.height // _TIMED, named=True) for number in range(_TIMED)]
    for row in chosen[:_WARM_UP]:
        model.predict_rows([row])
    found = []
    for row in chosen:
        begun = perf_counter()
        model.predict_rows([row])
        found.append((perf_counter() - begun) * 1000)
    return found


def read_us(
    online: OnlineReads, inputs: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> tuple[float, dict[str, float]] | None:
    """Microseconds that the online read of a question takes: of all inputs, and of each group beyond reading nothing.

    The median over the questions, of each the quickest of some reads. A group is read alone, since what a read of
    hundreds of values takes less without a few of them is lost in its noise: what groups share (Redis's round trip, the
    values that two request views are made of) counts in each, so together they may take longer than everything.

    None: there are no questions, or the store holds nothing of what they ask for, which would be read sooner than it
    is in service.
    """
    arms = [online.of(chosen) for chosen in (inputs, (), *groups.values())]
    if not any(read().get(name) for read in arms[0] for name in online.looked_up):
        return None
    taken = [_quickest([arm[number] for arm in arms]) for number in range(len(arms[0]))]
    whole, nothing, *alone = (median(of_question) for of_question in zip(*taken, strict=True))
    return whole, {name: value - nothing for name, value in zip(groups, alone, strict=True)}


def _quickest(reads: Sequence[Read]) -> list[float]:
    """Microseconds of each; in another order each time, since a read behind a larger one finds a colder processor."""
    best, order, shuffled = [float("inf")] * len(reads), [*range(len(reads))], Random(_TURNS)
    for _ in range(_TURNS):
        shuffled.shuffle(order)
        for place in order:
            begun = perf_counter()
            reads[place]()
            best[place] = min(best[place], (perf_counter() - begun) * 1e6)
    return best
