"""E-processes: evidence about a canary that may be looked at after every event, and acted on at any of these looks.

An e-process starts at 1, is never negative and, if what it speaks against is true, has a mean of at most 1 whenever
one stops. So it ever reaches 1/alpha with probability at most alpha (Ville 1939), however often anybody looks.

Two kinds of bets, both mixtures over a fixed grid, so a state is one log-sum for each place of the grid:

- on *odds* (Lindon & Malek 2022 for counts): units are assigned at random, so if the canary's answers are no worse, a
  bad event is the canary's with the probability with which its unit was assigned to it, whatever the error rate does;
- on a *mean* (Waudby-Smith & Ramdas 2024): of bounded differences between the canary's and the champion's losses.

What must hold: the assignment is random with a known probability, fixed before the unit's outcome; each unit counts
once; and whatever an event is compared with (a quantile, a running mean) was fixed before the event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Odds ratios that the rollback bets on: a canary 3 % worse up to one that causes thirty times the errors. Even in the
# logarithm of the excess: it finds a doubling about as soon as one even in that of the ratio, with fewer false alarms.
ODDS: Floats = 1 + np.geomspace(0.03, 29, 40)
# By how much below the margin the promotion bets that the odds are. Equal at a margin of 1.5 is a ratio of 1.5.
BELOW: Floats = 1 + np.geomspace(0.1, 5, 40)
# Bets on means, as shares of the largest bet that cannot go broke.
BETS: Floats = np.geomspace(0.004, 0.95, 32)
# Events put together at once: bounds the memory to a few megabytes.
_BLOCK = 4096
_LARGEST_LOG = 700.0  # e to this still is a float


def odds_sums(
    canary: ArrayLike, both: ArrayLike, probability: ArrayLike, *, odds: Floats = ODDS, against: float = 1.0
) -> Floats:
    """What bad events add to the log-sums: (..., len(odds)), for arrays of one shape (...).

    canary, both: how many bad events were the canary's, and how many in all (1 each for single events).
    probability: with which the units of these events were assigned to the canary. At 0 or 1 nothing could be learned,
    and nothing is added.
    against: the odds ratio that is spoken against: 1 for "no worse"; for "at least the margin", the margin, with
    ``odds`` below it.

    Raises:
        ValueError: a probability outside [0, 1], counts that are negative or not whole to each other, or an event on
            a side to which nobody could be assigned.
    """
    mine, all_of_them, chance = _checked_events(canary, both, probability)
    base = np.log1p(chance * (against - 1))[..., None]
    normal = np.log1p(chance[..., None] * (odds - 1)) - base
    sums: Floats = mine[..., None] * np.log(odds / against) - all_of_them[..., None] * normal
    # At a probability of 1 the two terms cancel but for rounding; a service left there for a year must not drift.
    certain = (chance == 0) | (chance == 1)
    if certain.any():
        sums[np.broadcast_to(certain, sums.shape[:-1])] = 0.0
    return sums


def below(margin: float) -> Floats:
    """The odds that the promotion bets on when it speaks against "odds of at least ``margin``".

    Raises:
        ValueError: a margin of at most 1, which would promote only what is better.
    """
    if not margin > 1 or not np.isfinite(margin):
        raise ValueError(f"a margin of {margin} on odds must be a number above 1, such as 1.5")
    return margin / BELOW


def mean_sums(differences: ArrayLike, lowest: ArrayLike, *, above: float = 0.0, bets: Floats = BETS) -> Floats:
    """What differences add to the log-sums that speak against "their mean is at most ``above``": (..., len(bets)).

    lowest: the least that each difference could have been, known before it. To speak against "at least ``margin``"
    give ``-differences``, ``-highest`` and ``above=-margin``.

    Raises:
        ValueError: a difference that is no number or below its lowest, or an ``above`` that no difference can miss.
    """
    found, least = np.asarray(differences, dtype=np.float64), np.asarray(lowest, dtype=np.float64)
    room = above - least
    if not (room > 0).all():
        raise ValueError(f"a mean of at most {above} cannot be doubted where no difference can be below it")
    if not (found >= least - 1e-12).all():
        raise ValueError("a difference is no number, or is below the lowest that was said to be possible")
    sums: Floats = np.log1p(bets * np.maximum((found - above) / room, -1.0)[..., None])
    return sums


def log_mean(sums: Floats) -> Floats:
    """(...): the logarithm of the mean over the grid, of log-sums (..., grid)."""
    top = sums.max(axis=-1)
    mean: Floats = top + np.log(np.exp(sums - top[..., None]).mean(axis=-1))
    return mean


def combined(logs: Sequence[float]) -> float:
    """The logarithm of the average of e-values, given their logarithms.

    The average is an e-value again however the metrics hang together (Vovk & Wang 2021); their product is not.

    Raises:
        ValueError: there is none, or one is no number.
    """
    if len(logs) == 0 or np.isnan(logs).any():
        raise ValueError(f"there must be e-values to average, all of them numbers; these are {list(logs)}")
    return float(log_mean(np.asarray(logs, dtype=np.float64)))


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Unbiased differences, canary less champion, with the least and the most that each could have been."""

    found: Floats
    lowest: Floats
    highest: Floats

    def against_at_most(self, mean: float) -> Floats:
        """What they add to the log-sums against "the canary's mean is at most ``mean`` higher"."""
        return mean_sums(self.found, self.lowest, above=mean)

    def against_at_least(self, mean: float) -> Floats:
        """What they add to the log-sums against "the canary's mean is at least ``mean`` higher"."""
        return mean_sums(-self.found, -self.highest, above=-mean)


def weighted_differences(
    values: ArrayLike, canary: ArrayLike, probability: ArrayLike, baseline: ArrayLike
) -> Differences:
    """Of units that either side answered: each by the inverse of the probability of its side; arrays of one shape.

    The mean of ``(value - baseline) (x / w - (1 - x) / (1 - w))`` is the difference of the two means, whatever the
    baseline. A baseline near the values' mean, known before the unit, makes it vary less: by the values' spread
    around it and not by their size.

    values, baseline: in [0, 1]. canary: true where the canary answered. probability: in (0, 1).

    Raises:
        ValueError: something outside its range, or no number.
    """
    found, level = unit_values(values, "value"), unit_values(baseline, "baseline")
    mine, _, chance = _checked_events(canary, np.ones(found.shape), probability)
    if not ((chance > 0) & (chance < 1)).all():
        raise ValueError("where all units go to one side there is nothing to compare with; leave these units out")
    weight = np.where(mine == 1, 1 / chance, -1 / (1 - chance))
    lowest = -np.maximum(level / chance, (1 - level) / (1 - chance))
    highest = np.maximum((1 - level) / chance, level / (1 - chance))
    return Differences(
        found=(found - level) * weight,
        lowest=np.broadcast_to(lowest, found.shape),
        highest=np.broadcast_to(highest, found.shape),
    )


def levels_before(values: Floats, total: ArrayLike = 0.0, units: int = 0) -> Floats:
    """(..., n): the mean of what came before each of the values (..., n) in [0, 1]: a baseline that is known before it.

    total, units: sum (...) and number of the values before these. One half is counted in, as if it had come first.
    """
    start = np.broadcast_to(np.asarray(total, dtype=np.float64), values.shape[:-1])[..., None]
    sums = np.cumsum(np.concatenate([start, values[..., :-1]], axis=-1), axis=-1) if values.shape[-1] else values
    levels: Floats = np.clip((sums + 0.5) / (units + np.arange(values.shape[-1]) + 1), 0.0, 1.0)
    return levels


def paired_differences(canary: ArrayLike, champion: ArrayLike) -> Differences:
    """Of units that both scored (a shadow): losses in [0, 1] of the same rows, so differences in [-1, 1].

    Raises:
        ValueError: a loss outside [0, 1], or no number.
    """
    found = unit_values(canary, "canary's value") - unit_values(champion, "champion's value")
    return Differences(found=found, lowest=np.full(found.shape, -1.0), highest=np.full(found.shape, 1.0))


def scaled(values: ArrayLike, *, low: float, high: float, higher_is_better: bool = False) -> Floats:
    """Values of a declared range as losses in [0, 1].

    Raises:
        ValueError: an empty range, or values outside it (NaN included).
    """
    found = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"a metric needs a range from a lower to a higher number; {low} to {high} is none")
    outside = ~((found >= low) & (found <= high))
    if outside.any():
        raise ValueError(
            f"{int(outside.sum())} of {found.size} values are outside the declared range {low} to {high}, the first "
            f"{found[outside].flat[0]}; declare the range that they have, or clip them before they are counted"
        )
    return (high - found if higher_is_better else found - low) / (high - low)


@dataclass(frozen=True, kw_only=True)
class EProcess:
    """The evidence so far. ``sums``: one log-sum for each bet of its grid; peak: the highest log E at any event.

    Log-sums of workers add, for bets on odds and on means alike: a worker's events are bets whose terms (probability,
    quantile, baseline) it fixed before each. What does *not* add is a worker's own terms; each keeps its own.
    """

    sums: tuple[float, ...]
    peak: float = 0.0
    events: int = 0

    @classmethod
    def over(cls, bets: int) -> Self:
        """Nothing seen: E is 1."""
        return cls(sums=(0.0,) * bets)

    @property
    def log_e(self) -> float:
        """The logarithm of E now."""
        return float(log_mean(np.asarray(self.sums)))

    @property
    def e(self) -> float:
        """E now; a number beyond what a float holds is cut there."""
        return cut_exp(self.log_e)

    def reached(self, alpha: float) -> bool:
        """Whether E was at least 1/alpha at any event so far.

        Raises:
            ValueError: an alpha outside (0, 1).
        """
        return self.peak >= log_bar(alpha)

    def after(self, sums: Floats) -> Self:
        """With what more events add, (events, grid), in their order. Added one by one: the same bits however cut up.

        Raises:
            ValueError: another number of bets, or something that is no number.
        """
        if sums.ndim != 2 or sums.shape[1] != len(self.sums) or np.isnan(sums).any():
            raise ValueError(f"events must add numbers of shape (events, {len(self.sums)}), not {sums.shape}")
        now, peak = np.asarray(self.sums), self.peak
        for start in range(0, len(sums), _BLOCK):
            run = np.cumsum(np.concatenate([now[None], sums[start : start + _BLOCK]]), axis=0)
            now, peak = run[-1], max(peak, float(log_mean(run[1:]).max()))
        return replace(self, sums=tuple(now.tolist()), peak=peak, events=self.events + len(sums))

    def merged(self, other: Self) -> Self:
        """Of two workers with units of their own. The peak is what the two say together now: theirs was at other times.

        Raises:
            ValueError: their grids differ in size.
        """
        if len(self.sums) != len(other.sums):
            raise ValueError(f"{len(self.sums)} and {len(other.sums)} bets cannot be added; both need the same grid")
        sums = np.add(self.sums, other.sums)
        peak = max(0.0, float(log_mean(sums)))
        return replace(self, sums=tuple(sums.tolist()), peak=peak, events=self.events + other.events)

    def as_json(self) -> dict[str, Any]:
        """Plain values, from which ``from_json`` makes the same bits again."""
        return {"sums": list(self.sums), "peak": self.peak, "events": self.events}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What ``as_json`` gave."""
        sums = tuple(float(value) for value in stored["sums"])
        return cls(sums=sums, peak=float(stored["peak"]), events=int(stored["events"]))


def log_bar(alpha: float) -> float:
    """What log E has to reach to be acted on with a risk of ``alpha``.

    Raises:
        ValueError: an alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is the risk of acting wrongly, between 0 and 1; {alpha} is not")
    return float(-np.log(alpha))


def cut_exp(log_e: float) -> float:
    """E of its logarithm, cut at what a float holds."""
    return float(np.exp(min(log_e, _LARGEST_LOG)))


def unit_values(values: ArrayLike, what: str) -> Floats:
    """Values as floats, all in [0, 1].

    Raises:
        ValueError: one is not (NaN included); says which.
    """
    found = np.asarray(values, dtype=np.float64)
    outside = ~((found >= 0) & (found <= 1))
    if outside.any():
        raise ValueError(
            f"{int(outside.sum())} of {found.size} are outside [0, 1], the first {what} being "
            f"{found[outside].flat[0]}; bring it into its declared range first (`scaled`)"
        )
    return found


def _checked_events(canary: ArrayLike, both: ArrayLike, probability: ArrayLike) -> tuple[Floats, Floats, Floats]:
    mine, all_of_them = np.asarray(canary, dtype=np.float64), np.asarray(both, dtype=np.float64)
    chance = unit_values(probability, "assignment probability")
    if not ((mine >= 0) & (mine <= all_of_them) & np.isfinite(all_of_them)).all():
        raise ValueError("of each row's bad events the canary's must be at least 0 and at most all of them")
    if ((chance == 0) & (mine > 0)).any() or ((chance == 1) & (mine < all_of_them)).any():
        raise ValueError(
            "an event is on a side to which nobody could be assigned (probability 0 or 1): the probability logged is "
            "not the one that the unit was assigned with"
        )
    return mine, all_of_them, chance
