"""What answers cost: the time of single rows, and the time of reading online what they are made of."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import polars as pl

from ml_platform.training.model import Model

_WARM_UP, _TIMED = 5, 100
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
    """Microseconds of a question's read of all inputs (the median over the questions), and how many of them it takes
    less without each group (the median of the differences, question by question).

    Each question is read once before it is timed, and then with and without each group in turn, so that none meets
    colder memory than another. What is shared, such as the round trip to Redis, is saved by none. None: there are no
    questions, or the store holds nothing of what they ask for, whose reading would cost less than it does in service.
    """
    arms = [online.of(inputs), *(online.of([name for name in inputs if name not in some]) for some in groups.values())]
    found = [read() for read in arms[0]]
    if not any(vector.get(name) for vector in found for name in online.looked_up):
        return None
    taken = [_taken([arm[number] for arm in arms], first=number) for number in range(len(found))]
    saved = (median(of[0] - of[place] for of in taken) for place in range(1, len(arms)))
    return median(of[0] for of in taken), dict(zip(groups, saved, strict=True))


def _taken(reads: Sequence[Read], *, first: int) -> list[float]:
    """Microseconds of each; begun with another one each time."""
    taken = [0.0] * len(reads)
    for step in range(len(reads)):
        place = (first + step) % len(reads)
        begun = perf_counter()
        reads[place]()
        taken[place] = (perf_counter() - begun) * 1e6
    return taken
