"""One fault on one date: day by day, who sees it first, with which sentence, and what it would have cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from ml_platform.drills.clean_year import CleanYear, Frames, refreshed, within
from ml_platform.drills.compared import Profiles, Source
from ml_platform.drills.cost import Cost, cost
from ml_platform.drills.live_path import served_live
from ml_platform.drills.planting import Plant, admitted, unchecked
from ml_platform.drills.watch import (
    DETECTORS,
    FRESHNESS,
    PERFORMANCE,
    SKEW,
    TRUTHS,
    Looked,
    changed_rows,
    compared,
    contract,
    losses,
    noticed,
    performed,
    planted_contract,
    skewed,
    truths,
)
from ml_platform.spec import Verdict
from ml_platform.spec.calendar import days_between
from ml_platform.stores.delta import PARTITION

_LABELS_WITHIN = 3  # days after a fault's end on which late labels may still tell of it
_Wrong = Mapping[Source, Mapping[date, pl.DataFrame]]
_HELD = 0.5  # share of the wrong rows that a contract must set aside to have kept the fault out
_AFTER_MIDNIGHT = timedelta(hours=2)  # when a deadline of a table that is made daily has passed


@dataclass(frozen=True, kw_only=True)
class Catch:
    """An alarm that a clean day would not have had. day: 0 is the day on which the fault began."""

    detector: str
    day: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came of a planted fault. catches: the first of each detector, in the order of time and of the data's way.

    cost_of_day, cost_of_week: from the first day on which an answer could be another; None: nothing was answered.
    """

    plant: Plant
    catches: tuple[Catch, ...]
    cost_of_day: Cost | None
    cost_of_week: Cost | None

    @property
    def first(self) -> Catch | None:
        """Who saw it first."""
        return self.catches[0] if self.catches else None

    @property
    def late(self) -> bool:
        """Whether it was not seen on its first day."""
        return self.first is None or self.first.day > 0


def drill(profiles: Profiles, plant: Plant) -> Told:
    """Plant the fault and let every detector look, each day until one has seen it."""
    year = profiles.year
    wrong = _wrong_answers(year, plant)
    trained = year.champion(plant.first)
    right = year.answers(trained, _span(plant)[1])
    answers = year.answered(wrong, trained)
    with_fault = pl.concat([right.filter(pl.col(PARTITION) < plant.first), answers])
    found = [
        *_before_answers(profiles, plant),
        *_of_answers(profiles, plant, wrong),
        *_by_truths(year, plant),
        *_by_performance(profiles, plant, with_fault),
    ]
    first: dict[str, Catch] = {}
    for catch in sorted(found, key=lambda catch: (catch.day, DETECTORS.index(catch.detector))):
        first.setdefault(catch.detector, catch)
    costs = _costs(year, plant, right, with_fault)
    return Told(plant=plant, catches=tuple(first.values()), cost_of_day=costs[0], cost_of_week=costs[1])


def _is_served(plant: Plant) -> bool:
    """Whether only what is served is wrong, so that no raw table can tell."""
    return plant.fault.live or not plant.fault.table


def _span(plant: Plant) -> tuple[date, date]:
    """The days on which answers may be wrong, and some on which labels tell of it."""
    return plant.first, plant.last + timedelta(days=_LABELS_WITHIN)


def _wrong_answers(year: CleanYear, plant: Plant) -> pl.DataFrame:
    """The questions with the features that they would have had, had nobody looked."""
    first, last = _span(plant)
    if plant.fault.table:
        return refreshed(year, unchecked(plant, year), plant.fault.table, first, last)
    days = [plant.on(year.read(day, day), day) for day in days_between(first, last)]
    return pl.concat(days)


def _before_answers(profiles: Profiles, plant: Plant) -> Iterator[Catch]:
    """Contract, deadline and drift of what the contract lets in, until the first of them has seen it."""
    if _is_served(plant):
        return
    year, table, raw = profiles.year, plant.fault.table, profiles.year.raw
    let_in = dict[date, pl.DataFrame]()
    wrong: dict[Source, dict[date, pl.DataFrame]] = {}
    for number, day in enumerate(days_between(plant.first, plant.last)):
        looked = planted_contract(year, plant, day, raw)
        caught = [*_by_contract(year, plant, day, number, looked), *_by_deadline(year, plant, day, number, looked)]
        if looked.batch is not None and looked.ran and not looked.batch.refused:  # what reads a refused column waits
            let_in[day] = looked.batch.good
            raw = admitted(plant, year, let_in)
            for source, rows in _let_through(profiles, plant, raw, day).items():
                wrong.setdefault(source, {})[day] = rows
            caught += _by_drift(profiles, day, number, [table], wrong)
        yield from caught
        if caught:
            return


def _let_through(profiles: Profiles, plant: Plant, raw: Frames, day: date) -> dict[Source, pl.DataFrame]:
    """What is profiled of a day with these raw tables: the table itself, what is served, and the labels."""
    year, table = profiles.year, plant.fault.table
    rows = raw[table]
    of_day = rows.filter(pl.col(PARTITION) == day).drop(PARTITION) if PARTITION in rows.columns else rows
    asked = refreshed(year, raw, table, day, day)
    found = {
        ("raw", table): of_day,
        ("predictions", year.service.name): profiles.served(asked, year.champion(plant.first)),
    }
    if table == year.spec.task.label.table:
        found["labels", year.service.name] = profiles.truths(of_day)
    return found


def _by_contract(year: CleanYear, plant: Plant, day: date, number: int, looked: Looked) -> Iterator[Catch]:
    """An alarm that the day would not have had, or wrong rows of which the most were set aside."""
    if not looked.verdict.passed:
        clean = contract(year, year.project.tables[plant.fault.table], day)
        if clean.verdict.passed or looked.failing - clean.failing:
            yield Catch(detector=looked.by, day=number, reason=looked.verdict.reason)
    elif looked.batch is not None and looked.batch.quarantined.height:
        changed = changed_rows(plant, year, day)
        if changed and looked.batch.quarantined.height >= _HELD * changed:
            yield Catch(detector=looked.by, day=number, reason=looked.verdict.reason)


def _by_deadline(year: CleanYear, plant: Plant, day: date, number: int, looked: Looked) -> list[Catch]:
    """Only a table that was not made can miss its deadline."""
    from ml_platform.automation.deadlines import deadline  # loads Dagster, and the command line is in serving images

    if looked.batch is not None:
        return []
    last_made = year.closes(plant.first - timedelta(days=1))
    found = deadline(year.project.tables[plant.fault.table], year.closes(day) + _AFTER_MIDNIGHT - last_made)
    return [Catch(detector=FRESHNESS, day=number, reason=found.reason)] if found.state == "fail" else []


def _by_drift(profiles: Profiles, day: date, number: int, tables: list[str], wrong: _Wrong) -> Iterator[Catch]:
    """Policies that see a sharp change where a clean day has none."""
    for by, policy in profiles.policies(tables):
        found = profiles.judge(policy, by, day, wrong)
        if found.verdict.state == "fail" and found.sharp - profiles.clean(policy, by, day).sharp:
            yield Catch(detector=by, day=number, reason=found.verdict.reason)


def _of_answers(profiles: Profiles, plant: Plant, asked: pl.DataFrame) -> Iterator[Catch]:
    """Skew and drift of what is served otherwise than it is computed."""
    if not _is_served(plant):
        return
    year = profiles.year
    yield from _by_skew(year, plant, asked)
    served: dict[date, pl.DataFrame] = {}
    for number, day in enumerate(days_between(plant.first, plant.last)):
        served[day] = profiles.served(asked.filter(pl.col(PARTITION) == day), year.champion(plant.first))
        found = list(_by_drift(profiles, day, number, [], {("predictions", year.service.name): served}))
        yield from found
        if found:
            break


def _by_skew(year: CleanYear, plant: Plant, wrong: pl.DataFrame) -> Iterator[Catch]:
    for number, day in enumerate(days_between(plant.first, plant.last)):
        rows = compared(year, wrong.filter(pl.col(PARTITION) == day))
        if plant.fault.live:
            rows = served_live(year, plant, compared(year, year.read(day, day)))
        found: Verdict = skewed(year, rows, dict(within(year.project, year.spec, year.raw, day, day)))
        if found.state == "fail":
            yield Catch(detector=SKEW, day=number, reason=found.reason)
            return


def _by_truths(year: CleanYear, plant: Plant) -> Iterator[Catch]:
    """The first day on which answers that are old enough lack their truths, and would not without the fault."""
    table, within = year.spec.task.label.table, year.service.truths_within
    if plant.fault.table != table or within is None:
        return
    outcomes = unchecked(plant, year)[table]
    for number, day in enumerate(days_between(plant.first, plant.last + within + timedelta(days=1))):
        found = truths(year, outcomes, day)
        if found.state == "fail" and truths(year, year.raw[table], day).state != "fail":
            yield Catch(detector=TRUTHS, day=number, reason=found.reason)
            return


def _by_performance(profiles: Profiles, plant: Plant, wrong: pl.DataFrame) -> Iterator[Catch]:
    """The first day on which late labels ask for another champion, and would not have without the fault.

    wrong: answers of all days since the champion serves.
    """
    year = profiles.year
    first, last = _span(plant)
    trained = year.champion(plant.first)
    in_the_end = losses(year, wrong, year.closes(last))
    for number, day in enumerate(days_between(first, last)):
        # What all labels do not ask for, fewer would not have asked for.
        if performed(year, in_the_end, trained, day).state != "fail" or profiles.asked_anyway(trained, day):
            continue
        found = noticed(year, wrong, trained, day)
        if found.state == "fail":
            yield Catch(detector=PERFORMANCE, day=number, reason=found.reason)
            return


def _costs(year: CleanYear, plant: Plant, right: pl.DataFrame, wrong: pl.DataFrame) -> tuple[Cost | None, Cost | None]:
    """Of the first day on which an answer can be another, and of all days of the fault and of its answers."""
    task = year.spec.task
    rollouts = [policy for policy in year.project.rollout_policies.values() if policy.service == year.service.name]
    declared = {name: metric for policy in rollouts for name, metric in policy.metrics.items()}
    delay = timedelta(days=int(plant.fault.table == task.spine))  # a timetable is that of the next day
    first = plant.first + delay

    def until(last: date) -> Cost | None:
        days = pl.col(PARTITION).is_between(first, last)
        return cost(task.key, right.filter(days), wrong.filter(days), declared)

    return until(first), until(plant.last + delay)
