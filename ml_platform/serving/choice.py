"""Which loaded version answers a row. The one place where traffic is divided."""

from collections.abc import Sequence

from ml_platform.serving.champion import Champion
from ml_platform.serving.requests import Row


def choose(rows: Sequence[Row], champion: Champion) -> Sequence[Champion]:
    """For each row the version that answers it: always the champion.

    What is chosen here is looked up, scored, logged and named row by row, so rows of one request may go apart.
    """
    return [champion] * len(rows)
