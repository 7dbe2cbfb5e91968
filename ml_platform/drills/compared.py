"""Profiles and drift on any day of a year with or without a fault: the functions that the assets call, in memory.

Bins are learned anew each quarter from the days before it; a lake learns them anew when they fit no more.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import polars as pl

from ml_platform.drills.clean_year import PROBABILITY, CleanYear
from ml_platform.drills.watch import ANSWERS, DRIFT, LABELS, PROFILE, noticed
from ml_platform.monitoring.drift import ALL, Together, compared_with, drift, rows_by_day
from ml_platform.monitoring.layouts import learn
from ml_platform.monitoring.profile import Layout, profile
from ml_platform.monitoring.profile_table import to_rows
from ml_platform.monitoring.profiling import by_local_clock
from ml_platform.monitoring.together import apart, most_of_each, spread
from ml_platform.monitoring.uncovered import MIN_ROWS, RULE, uncovered
from ml_platform.monitoring.watched import source_of
from ml_platform.spec import DriftPolicy, JointRule, Verdict
from ml_platform.spec.calendar import days_between
from ml_platform.stores.delta import PARTITION

# What a policy watches of a service -> who alarms.
_BY: Mapping[str, str] = {"features": DRIFT, "predictions": ANSWERS, "labels": LABELS}
_LEARN_DAYS = 84
Source = tuple[str, str]  # as the asset's key: ("raw", "weather"), ("predictions", "delay")


@dataclass(frozen=True, kw_only=True)
class Drifted:
    """A policy's verdict on a day, and the columns (values or missing values) that changed sharply."""

    by: str
    policy: str
    verdict: Verdict
    sharp: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """The profiles of a clean year, made when they are asked for."""

    year: CleanYear
    _layouts: dict[tuple[Source, date], list[Layout]] = field(default_factory=dict)
    _rows: dict[tuple[Source, date, date], pl.DataFrame] = field(default_factory=dict)
    _joint: dict[tuple[str, date], dict[str, float]] = field(default_factory=dict)
    _asked_anyway: dict[tuple[date, date], bool] = field(default_factory=dict)
    _clean_verdicts: dict[tuple[str, date], Drifted] = field(default_factory=dict)

    def policies(self, tables: Iterable[str]) -> Iterator[tuple[str, DriftPolicy]]:
        """(who alarms, policy) of the service and of these raw tables, what no policy covers included."""
        project = self.year.project
        for policy in project.drift_policies.values():
            if policy.service == self.year.service.name:
                yield _BY[policy.of], policy
            elif policy.table in tables:
                yield PROFILE, policy
        for name in tables:
            columns = uncovered(project, project.tables[name])
            if columns and project.tables[name].partitioned:
                yield (
                    PROFILE,
                    DriftPolicy(name=f"raw/{name}", table=name, columns=tuple(columns), sharp=RULE, min_rows=MIN_ROWS),
                )

    def asked_anyway(self, trained: date, day: date) -> bool:
        """Whether late labels ask for another champion on a day without a fault."""
        if (trained, day) not in self._asked_anyway:
            found = noticed(self.year, self.year.answers(trained, day), trained, day)
            self._asked_anyway[trained, day] = found.state == "fail"
        return self._asked_anyway[trained, day]

    def clean(self, policy: DriftPolicy, by: str, day: date) -> Drifted:
        """The verdict on a day without a fault."""
        if (policy.name, day) not in self._clean_verdicts:
            self._clean_verdicts[policy.name, day] = self.judge(policy, by, day, {})
        return self._clean_verdicts[policy.name, day]

    def judge(
        self, policy: DriftPolicy, by: str, day: date, wrong: Mapping[Source, Mapping[date, pl.DataFrame]]
    ) -> Drifted:
        """The verdict on a day. wrong: rows, by source and day, that stand in place of the clean ones."""
        source, quarter = source_of(policy), _quarter(day)
        others = wrong.get(source, {})
        first = day - timedelta(days=policy.seasons.recent_days)
        days = days_between(first if source[0] == "raw" else max(first, self.year.project.serves_from), day)
        parts = [
            self._counted(source, quarter, one, others[one]) if one in others else self._of_clean(source, quarter, one)
            for one in days
        ]
        rows = pl.concat(parts)
        if source[0] == "predictions":
            answer = pl.col("column") == PROBABILITY
            rows = rows.filter(answer if policy.of == "predictions" else ~answer)
        verdict, table = drift(rows, day, policy, together=self._together(policy, day, rows, others))
        failing = table.filter(pl.col("verdict") == "fail")
        return Drifted(by=by, policy=policy.name, verdict=verdict, sharp=frozenset(failing["feature"]))

    def _together(
        self, policy: DriftPolicy, day: date, rows: pl.DataFrame, others: Mapping[date, pl.DataFrame]
    ) -> Together | None:
        """Whether the features of a day belong together, on the days on which the policy asks that."""
        if policy.joint is None or day.toordinal() % policy.joint_every_days:
            return None
        days = compared_with(rows_by_day(rows), day, policy).days
        distances = self._apart(policy.joint, day, days, others) if day in others else self._clean_joint(policy, day)
        first = day - timedelta(days=policy.seasons.recent_days)
        asked = days_between(max(first, self.year.project.serves_from), day - timedelta(days=1))
        earlier: dict[str, list[float]] = {}
        for one in asked:
            if not one.toordinal() % policy.joint_every_days:
                for name, far in self._clean_joint(policy, one).items():
                    earlier.setdefault(name, []).append(far)
        return Together(distances=distances, earlier=earlier)

    def _clean_joint(self, policy: DriftPolicy, day: date) -> dict[str, float]:
        """How far a clean day is, made when it is asked for."""
        assert policy.joint is not None
        if (policy.name, day) not in self._joint:
            first = max(day - timedelta(days=policy.seasons.recent_days), self.year.project.serves_from)
            counts = {one: self.year.read(one, one).height for one in days_between(first, day)}
            days = compared_with(counts, day, policy).days
            self._joint[policy.name, day] = self._apart(policy.joint, day, days, {})
        return self._joint[policy.name, day]

    def _apart(
        self, rule: JointRule, day: date, days: Sequence[date], others: Mapping[date, pl.DataFrame]
    ) -> dict[str, float]:
        chosen = spread(days)
        most = most_of_each(chosen, rule)
        parts = [self._sampled(others.get(one), one, most) for one in chosen]
        return apart(self._sampled(others.get(day), day, rule.rows), parts, rule, day, ALL)

    def _sampled(self, wrong: pl.DataFrame | None, day: date, most: int) -> pl.DataFrame:
        """So many of the day's rows, evenly spread over it."""
        rows = self.year.read(day, day) if wrong is None else wrong
        places = np.linspace(0, rows.height - 1, min(most, rows.height)).astype(np.int64)
        return rows.select(pl.col(self.year.features).cast(pl.Float64))[places]

    def _of_clean(self, source: Source, quarter: date, day: date) -> pl.DataFrame:
        place = (source, quarter, day)
        if place not in self._rows:
            self._rows[place] = self._counted(source, quarter, day, self.rows_of(source, day))
        return self._rows[place]

    def _counted(self, source: Source, quarter: date, day: date, rows: pl.DataFrame) -> pl.DataFrame:
        return to_rows(profile(self._as_counted(source, rows), self._bins(source, quarter)), day)

    def _as_counted(self, source: Source, rows: pl.DataFrame) -> pl.DataFrame:
        return by_local_clock(rows, self.year.project.timezone) if source[0] == "raw" else rows

    def _bins(self, source: Source, quarter: date) -> list[Layout]:
        if (source, quarter) not in self._layouts:
            days = days_between(max(quarter - timedelta(days=_LEARN_DAYS), self.year.project.ready_from), quarter)[:-1]
            reference = pl.concat(self.rows_of(source, day) for day in days)
            self._layouts[source, quarter] = learn(self._as_counted(source, reference), days=len(days))
        return self._layouts[source, quarter]

    def rows_of(self, source: Source, day: date) -> pl.DataFrame:
        """What is counted of a clean day."""
        family, name = source
        if family == "raw":
            rows = self.year.raw[name]
            return rows.filter(pl.col(PARTITION) == day).drop(PARTITION) if PARTITION in rows.columns else rows
        if family == "labels":
            return self.truths(self.rows_of(("raw", self.year.spec.task.label.table), day))
        return self.served(self.year.read(day, day), self.year.champion(day))

    def truths(self, outcomes: pl.DataFrame) -> pl.DataFrame:
        """The labels that became known, null where there is none."""
        return outcomes.select(value=self.year.spec.task.label.value.cast(pl.Int64))

    def served(self, rows: pl.DataFrame, trained: date) -> pl.DataFrame:
        """The features, and what the version trained on that day answers."""
        given = pl.Series(PROBABILITY, self.year.model(trained).predict(rows), dtype=pl.Float64)
        return rows.select(pl.col(self.year.features).cast(pl.Float64), given)


def _quarter(day: date) -> date:
    """The first day of its quarter."""
    return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
