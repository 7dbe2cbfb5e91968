"""What answers cost: the time of single rows."""

from time import perf_counter

import polars as pl

from ml_platform.training.model import Model

_WARM_UP, _TIMED = 5, 100


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
