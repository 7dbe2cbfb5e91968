"""A/B tests that may be watched: the difference of a declared metric with an always-valid interval, and the split.

Units are assigned at random to control or treatment; each counts once. The interval may be looked at after every
unit and the test be stopped on it; the check of the split says when units do not arrive as they are assigned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl

from ml_platform.serving.ab_interval import NO_SUMS, Sums, bets_on, split_log_e
from ml_platform.serving.eprocess import Floats, cut_exp, levels_before, log_bar, scaled, weighted_differences
from ml_platform.serving.evidence import Hashes, Records, checked_records, first_of_units, hashes_of, text_of
from ml_platform.serving.evidence_account import NOBODY, Side, added

CONTROL, TREATMENT = "control", "treatment"
SPLIT_ALPHA = 0.01  # a split that is found wrong stops a test, so it should seldom be found wrong by chance
# Units after which a point of the plot is kept: twelve in each power of ten, up to ten thousand million.
_KEPT = np.unique(np.round(np.geomspace(10, 1e10, 12 * 9 + 1)).astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What a test compares: a column of the records whose values lie between ``low`` and ``high`` (binary: 0 and 1)."""

    name: str
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an empty range.

        Raises:
            ValueError: the range is none.
        """
        scaled([], low=self.low, high=self.high)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place of the plot: after so many units, the difference (treatment less control) and its interval."""

    units: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """A test so far. ``points``: for a plot, the last one is now. ``split_log_e``: the highest so far."""

    metric: str
    control: Side
    treatment: Side
    now: Point
    points: tuple[Point, ...]
    alpha: float
    split_log_e: float
    split_holds: bool
    sentence: str

    @property
    def differs(self) -> bool:
        """The split holds, and the interval leaves zero out. Without data it never does."""
        return self.split_holds and not self.now.low <= 0 <= self.now.high


@dataclass(frozen=True, kw_only=True, eq=False)
class ABTest:
    """The state of one test; ``alpha`` is the risk that its interval ever misses the difference.

    values: sum and number of the scaled values so far; difference: sum of all unit differences.
    arrived: of each probability of the treatment, how many units went to control and to treatment.
    """

    compared: Compared
    alpha: float = 0.05
    control: Side = NOBODY
    treatment: Side = NOBODY
    sums: Sums = NO_SUMS
    values: tuple[float, int] = (0.0, 0)
    difference: float = 0.0
    arrived: Mapping[float, tuple[int, int]]
    split_peak: float = 0.0
    points: tuple[Point, ...] = ()
    seen: Hashes
    seen_values: Hashes

    @classmethod
    def nothing(cls, compared: Compared, *, alpha: float = 0.05) -> Self:
        """Before the first unit.

        Raises:
            ValueError: an alpha outside (0, 1).
        """
        log_bar(alpha)
        nobody = np.empty(0, np.int64)
        return cls(compared=compared, alpha=alpha, arrived={}, seen=nobody, seen_values=nobody)

    def after(self, records: Records) -> Self:
        """With more records, in order of time; the same, to the bit, however they are cut up.

        A record has ``unit``, ``variant`` (control or treatment), ``probability`` of the treatment, and the metric's
        column, null while nothing is known. A unit arrives with its first record; its first value counts.

        Raises:
            ValueError: a column that must be there is not, has nulls, or something is outside its range.
        """
        frame = checked_records(pl.DataFrame(records), (CONTROL, TREATMENT))
        fresh, seen = first_of_units(frame, self.seen)
        grown = replace(self._arrived(frame.filter(pl.Series(fresh, dtype=pl.Boolean))), seen=seen)
        if self.compared.name not in frame.columns:
            return grown
        known = frame.drop_nulls(self.compared.name)
        first, seen_values = first_of_units(known, self.seen_values)
        return replace(grown._measured(known.filter(pl.Series(first, dtype=pl.Boolean))), seen_values=seen_values)

    def _arrived(self, units: pl.DataFrame) -> Self:
        treated, probability = _treated(units), units["probability"].cast(pl.Float64).to_numpy()
        arrived, total = dict(self.arrived), np.zeros(units.height)
        for chance in sorted({*arrived, *probability.tolist()}):
            if not 0 < chance < 1:
                raise ValueError(f"a unit of a test goes to either side; a probability of {chance} leaves no choice")
            here, before = probability == chance, np.array(arrived.get(chance, (0, 0)))
            sides = np.stack([here & ~treated, here & treated], axis=1)
            counts = before + np.cumsum(sides, axis=0)
            total += split_log_e(counts, np.array([1 - chance, chance]))
            if units.height:
                arrived[chance] = (int(counts[-1, 0]), int(counts[-1, 1]))
        return replace(self, arrived=arrived, split_peak=max(self.split_peak, float(total.max(initial=0.0))))

    def _measured(self, units: pl.DataFrame) -> Self:
        if not units.height:
            return self
        raw = units[self.compared.name].cast(pl.Float64).to_numpy()
        treated, values = _treated(units), scaled(raw, low=self.compared.low, high=self.compared.high)
        chance = units["probability"].cast(pl.Float64).to_numpy()
        found = weighted_differences(values, treated, chance, levels_before(values, *self.values))
        bets = bets_on(found)
        differences = np.cumsum(np.concatenate([[self.difference], found.found]))[1:]
        counts = self.values[1] + np.arange(1, len(values) + 1)
        sums, points, start = self.sums, list(self.points), 0
        for stop in [*(np.flatnonzero(np.isin(counts, _KEPT)) + 1).tolist(), len(values)]:
            sums = sums.after(bets.between(start, stop))
            start = stop
            if counts[stop - 1] in _KEPT and (not points or points[-1].units < counts[stop - 1]):
                points.append(self._point(int(counts[stop - 1]), float(differences[stop - 1]), sums))
        return replace(
            self,
            control=self.control.after(raw[~treated]),
            treatment=self.treatment.after(raw[treated]),
            sums=sums,
            values=(added(self.values[0], values), int(counts[-1])),
            difference=float(differences[-1]),
            points=tuple(points),
        )

    def _point(self, units: int, difference: float, sums: Sums) -> Point:
        width, (low, high) = self.compared.high - self.compared.low, sums.interval(self.alpha)
        return Point(units=units, difference=difference / max(units, 1) * width, low=low * width, high=high * width)

    def report(self) -> Report:
        """The test so far, in a sentence and as points of a plot."""
        now = self._point(self.values[1], self.difference, self.sums)
        points = self.points if self.points and self.points[-1].units == now.units else (*self.points, now)
        split_holds = self.split_peak < log_bar(SPLIT_ALPHA)
        return Report(
            metric=self.compared.name,
            control=self.control,
            treatment=self.treatment,
            now=now,
            points=points,
            alpha=self.alpha,
            split_log_e=self.split_peak,
            split_holds=split_holds,
            sentence=self._sentence(now, split_holds),
        )

    def _sentence(self, now: Point, split_holds: bool) -> str:
        name, sides = self.compared.name, (self.treatment.units, self.control.units)
        if not split_holds:
            counts = ", ".join(
                f"{treated:,} of {other + treated:,} at {chance:g}" for chance, (other, treated) in self.arrived.items()
            )
            return (
                f"{name}: units do not arrive as they are assigned (treatment {counts}; E "
                f"{cut_exp(self.split_peak):.3g}), so no difference can be trusted; look for what loses units of a side"
            )
        if not all(sides):
            return f"{name}: no data on {'control' if sides[0] else 'treatment'} yet"
        word = "higher" if now.low > 0 else "lower" if now.high < 0 else "not told apart"
        return (
            f"{name}: treatment {word}; difference {now.difference:+.4g}, {1 - self.alpha:.0%} interval "
            f"{now.low:+.4g} to {now.high:+.4g}, valid at any look; {sides[0]:,} treated and {sides[1]:,} control units"
        )

    def merged(self, other: Self) -> Self:
        """Of two workers with units of their own: sums and counts add; the plot begins anew.

        Raises:
            ValueError: another metric or alpha, or a unit that both have counted.
        """
        if (self.compared, self.alpha) != (other.compared, other.alpha):
            raise ValueError("the two workers compare different things; both must follow the same test")
        twice = np.intersect1d(self.seen, other.seen).size
        if twice:
            raise ValueError(f"{twice} units were counted by both workers; send a unit always to the same worker")
        arrived = {
            chance: tuple(np.add(self.arrived.get(chance, (0, 0)), other.arrived.get(chance, (0, 0))).tolist())
            for chance in sorted({*self.arrived, *other.arrived})
        }
        split = sum(float(split_log_e(counts, [1 - chance, chance])) for chance, counts in arrived.items())
        return replace(
            self,
            control=self.control.merged(other.control),
            treatment=self.treatment.merged(other.treatment),
            sums=self.sums.merged(other.sums),
            values=(self.values[0] + other.values[0], self.values[1] + other.values[1]),
            difference=self.difference + other.difference,
            arrived=arrived,
            split_peak=max(0.0, split),
            points=(),
            seen=np.union1d(self.seen, other.seen),
            seen_values=np.union1d(self.seen_values, other.seen_values),
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, without any unit's name, from which ``from_json`` makes the same bits again."""
        return {
            "control": [self.control.units, self.control.total],
            "treatment": [self.treatment.units, self.treatment.total],
            "sums": self.sums.as_json(),
            "values": list(self.values),
            "difference": self.difference,
            "arrived": [[chance, *counts] for chance, counts in self.arrived.items()],
            "split_peak": self.split_peak,
            "points": [[point.units, point.difference, point.low, point.high] for point in self.points],
            "seen": text_of(self.seen),
            "seen_values": text_of(self.seen_values),
        }

    @classmethod
    def from_json(cls, compared: Compared, stored: Mapping[str, Any], *, alpha: float = 0.05) -> Self:
        """What ``as_json`` gave, for the same metric and alpha."""
        return cls(
            compared=compared,
            alpha=alpha,
            control=Side(units=stored["control"][0], total=stored["control"][1]),
            treatment=Side(units=stored["treatment"][0], total=stored["treatment"][1]),
            sums=Sums.from_json(stored["sums"]),
            values=(stored["values"][0], stored["values"][1]),
            difference=stored["difference"],
            arrived={chance: (other, treated) for chance, other, treated in stored["arrived"]},
            split_peak=stored["split_peak"],
            points=tuple(Point(units=n, difference=d, low=low, high=high) for n, d, low, high in stored["points"]),
            seen=hashes_of(stored["seen"]),
            seen_values=hashes_of(stored["seen_values"]),
        )


def plot_columns(points: Sequence[Point]) -> dict[str, Floats]:
    """The points as columns: units (for a logarithmic axis), difference, low and high."""
    return {
        name: np.array([getattr(point, name) for point in points]) for name in ("units", "difference", "low", "high")
    }


def _treated(units: pl.DataFrame) -> Any:
    return (units["variant"].cast(pl.String) == TREATMENT).to_numpy()
