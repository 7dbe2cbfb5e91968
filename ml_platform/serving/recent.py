"""The champion's own recent seconds: quantiles that an answer is compared with, frozen before it is looked at.

A quantile that an answer itself helped to make would know something about it, and the bet would be no fair one any
more. So quantiles are made anew after every ``EVERY`` records, of the ``WINDOW`` records before, and hold for the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_platform.serving.eprocess import ODDS, Floats, odds_sums

QUANTILES: Floats = np.array([0.5, 0.9, 0.99])
WINDOW, EVERY = 2000, 250
_LEAST = 100  # champion's answers; fewer say nothing of a 99 % quantile


def champion_quantiles(seconds: Floats, champion: NDArray[np.bool_]) -> Floats:
    """(..., 3): the champion's p50, p90, p99 of records (..., n); NaN where it has fewer than a hundred among them.

    The smallest of its values that at least the asked share does not exceed.
    """
    found = np.sort(np.where(champion, seconds, np.inf), axis=-1)
    count = champion.sum(axis=-1)[..., None]
    place = np.maximum(np.ceil(QUANTILES * count).astype(np.int64) - 1, 0)
    quantiles: Floats = np.where(count >= _LEAST, np.take_along_axis(found, place, axis=-1), np.nan)
    return quantiles


def slow_sums(
    seconds: Floats,
    canary: NDArray[np.bool_],
    probability: ArrayLike,
    quantiles: Floats,
    *,
    odds: Floats = ODDS,
    against: float = 1.0,
) -> Floats:
    """What answers slower than a quantile add to its log-sums: (..., 3, len(odds)), for answers (...).

    quantiles: (..., 3), frozen before each answer; NaN compares with nothing. An answer that is not slower adds zeros.
    """
    slower = (seconds[..., None] > quantiles).astype(np.float64)
    chance = np.broadcast_to(np.asarray(probability, dtype=np.float64)[..., None], slower.shape)
    return odds_sums(slower * canary[..., None], slower, chance, odds=odds, against=against)


@dataclass(frozen=True, kw_only=True)
class Recent:
    """The last records' seconds and whose they were, the frozen quantiles, and how many records came since."""

    seconds: tuple[float, ...] = ()
    champion: tuple[bool, ...] = ()
    quantiles: tuple[float, ...] | None = None
    since: int = 0

    def after(self, seconds: Floats, champion: NDArray[np.bool_]) -> tuple[Self, Floats]:
        """With more records (n,), and the quantiles (n, 3) that each is compared with; NaN while there are none."""
        kept, whose = np.append(self.seconds, seconds), np.append(np.array(self.champion, dtype=bool), champion)
        before, records = len(self.seconds), len(seconds)
        compared = np.full((records, len(QUANTILES)), np.nan)
        frozen, start = self.quantiles, 0
        for stop in range(EVERY - self.since, records + 1, EVERY):
            compared[start:stop] = np.nan if frozen is None else frozen
            window = slice(max(0, before + stop - WINDOW), before + stop)
            made = champion_quantiles(kept[window], whose[window])
            frozen, start = None if np.isnan(made).any() else tuple(made.tolist()), stop
        compared[start:] = np.nan if frozen is None else frozen
        newer = type(self)(
            seconds=tuple(kept[-WINDOW:].tolist()),
            champion=tuple(whose[-WINDOW:].tolist()),
            quantiles=frozen,
            since=(self.since + records) % EVERY,
        )
        return newer, compared

    def as_json(self) -> dict[str, Any]:
        """Plain values, from which ``from_json`` makes the same again."""
        quantiles = None if self.quantiles is None else list(self.quantiles)
        return {
            "seconds": list(self.seconds),
            "champion": [int(mine) for mine in self.champion],
            "quantiles": quantiles,
            "since": self.since,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What ``as_json`` gave."""
        quantiles = stored["quantiles"]
        return cls(
            seconds=tuple(float(value) for value in stored["seconds"]),
            champion=tuple(bool(mine) for mine in stored["champion"]),
            quantiles=None if quantiles is None else tuple(float(value) for value in quantiles),
            since=int(stored["since"]),
        )


NOTHING_RECENT = Recent()
