"""What the drill of faults found, put together: a line a fault, and the figures over all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from ml_platform.drills.cost import Cost
from ml_platform.drills.false_alarms import Quiet
from ml_platform.drills.fault_drill import Told
from ml_platform.drills.watch import DETECTORS, PERFORMANCE
from ml_platform.spec import Fault

NOBODY = "nobody"
AIM = 0.95  # of the dates on which contract and freshness faults are to be seen on day one


@dataclass(frozen=True, kw_only=True)
class Line:
    """One fault on all its dates."""

    fault: Fault
    told: tuple[Told, ...]

    @property
    def on_day_one(self) -> int:
        """Dates on which it was seen when its first day was closed."""
        return sum(one.first is not None and one.first.day == 0 for one in self.told)

    @property
    def missed(self) -> int:
        """Dates on which nobody saw it."""
        return sum(one.first is None for one in self.told)

    @property
    def first_by(self) -> dict[str, int]:
        """Who saw it first, on how many dates."""
        return dict(Counter(one.first.detector if one.first else NOBODY for one in self.told).most_common())

    @property
    def latest(self) -> int | None:
        """The longest that it went unseen, in days; None: for ever."""
        days = [one.first.day if one.first else None for one in self.told]
        return None if None in days else max(day for day in days if day is not None)

    @property
    def sentence(self) -> str:
        """What the first alarm said, on the first date on which there was one."""
        return next((one.first.reason for one in self.told if one.first), "")

    def mean_cost(self, of: str) -> float | None:
        """Mean over the dates of a figure of the week: ``auc``, ``log_loss``, ``changed`` or a business metric."""
        found = [figure(one.cost_of_week, of) for one in self.told]
        known = [one for one in found if one is not None]
        return mean(known) if known else None


def figure(cost: Cost | None, of: str) -> float | None:
    """A figure by name, from the business metrics if it is none of its own."""
    if cost is None:
        return None
    return cost.business[of] if of in cost.business else getattr(cost, of)


def lines(told: Sequence[Told]) -> list[Line]:
    """A line a fault, in the order in which they were planted."""
    by_fault: dict[str, list[Told]] = {}
    for one in told:
        by_fault.setdefault(one.plant.fault.name, []).append(one)
    return [Line(fault=ones[0].plant.fault, told=tuple(ones)) for ones in by_fault.values()]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """kinds: classes of faults; unseen: (fault, date) that nobody saw; due_early: plants that contract or freshness
    could have seen, of which seen_early were on day one; by_performance: of those, first seen by late labels.
    """

    plants: int
    kinds: int
    kinds_seen: int
    unseen: tuple[tuple[str, str], ...]
    due_early: int
    seen_early: int
    by_performance: tuple[tuple[str, str], ...]

    @property
    def share_early(self) -> float:
        """0..1; 1 if nothing was due."""
        return self.seen_early / self.due_early if self.due_early else 1.0


def figures(told: Sequence[Told]) -> Figures:
    """The figures over all plants."""
    due = [one for one in told if one.plant.fault.due in ("contract", "freshness")]
    kinds = {one.plant.fault.kind for one in told}
    unseen = [one for one in told if one.first is None]
    late = [one for one in due if one.first is not None and one.first.detector == PERFORMANCE]
    return Figures(
        plants=len(told),
        kinds=len(kinds),
        kinds_seen=len(kinds - {one.plant.fault.kind for one in unseen}),
        unseen=tuple(map(_named, unseen)),
        due_early=len(due),
        seen_early=sum(one.first is not None and one.first.day == 0 for one in due),
        by_performance=tuple(map(_named, late)),
    )


def _named(one: Told) -> tuple[str, str]:
    return one.plant.fault.name, str(one.plant.first)


def as_json(told: Sequence[Told], quiet: Quiet | None) -> dict[str, Any]:
    """Everything, for programs."""
    found = figures(told)
    return {
        "figures": {**vars(found), "share_early": found.share_early},
        "faults": [_fault_json(line) for line in lines(told)],
        "clean": None if quiet is None else _quiet_json(quiet),
    }


def _fault_json(line: Line) -> Mapping[str, Any]:
    fault = line.fault
    return {
        "name": fault.name,
        "kind": fault.kind,
        "description": fault.description,
        "table": fault.table or None,
        "columns": list(fault.columns),
        "due": fault.due,
        "dates": [
            {
                "first_day": str(one.plant.first),
                "catches": [vars(catch) for catch in one.catches],
                "cost_of_day": None if one.cost_of_day is None else vars(one.cost_of_day),
                "cost_of_week": None if one.cost_of_week is None else vars(one.cost_of_week),
            }
            for one in line.told
        ],
    }


def _quiet_json(quiet: Quiet) -> Mapping[str, Any]:
    return {
        "first": str(quiet.first),
        "last": str(quiet.last),
        "looks": quiet.looks,
        "set_aside": quiet.set_aside,
        "false_alarms_a_week": {name: quiet.a_week(name) for name in DETECTORS if name in quiet.looks},
        "alarms": [{**vars(alarm), "day": str(alarm.day)} for alarm in quiet.alarms],
    }
