"""Which loaded version answers a row. The one place where traffic is divided."""

from collections.abc import Sequence

from ml_platform.serving.champion import Champion, Serving
from ml_platform.serving.requests import Row
from ml_platform.serving.traffic import CANARY, CHAMPION, Variant

Chosen = tuple[Champion, Variant, float]  # a version, in which part, and the probability with which it came to that


def choose(rows: Sequence[Row], champion: Champion, serving: Serving | None) -> Sequence[Chosen]:
    """For each row who answers it: the canary its share of the units, the champion all others.

    What is chosen here is looked up, scored, logged and named row by row, so rows of one request may go apart.

    champion: by whose rules the rows were read; one that was exchanged since answers what it was asked.
    """
    if serving is None or serving.canary is None or serving.champion is not champion:
        return [(champion, CHAMPION, 1.0)] * len(rows)
    split, versions = serving.split, {CHAMPION: champion, CANARY: serving.canary}
    variants = [split.variant(row) for row in rows]
    return [(versions[variant], variant, split.probability(variant)) for variant in variants]
