"""A replayed service's performance as known at the end of each day, by the function that watches the real one."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.decisions.backtest_history import ROW, History
from ml_platform.decisions.backtest_versions import Version
from ml_platform.monitoring.performance import COLUMNS, FOLLOWED_FOR, cohorts
from ml_platform.spec import ASKED_AT, KNOWN_AT
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.delta import PARTITION

_Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Span:
    """A version and the days that it answered, both included. name: of the version, as in the prediction log."""

    version: Version
    name: str
    first: date
    last: date


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Looks at each (version, day of asking) once a day until all its truths are known, or for as long as the platform
    does. What was seen is shared by all policies.

    started: before that nothing is answered.
    """

    history: History
    started: datetime
    _seen: dict[tuple[str, date, date], _Row | None] = field(default_factory=dict, init=False, repr=False)
    _whole: dict[tuple[str, date], date] = field(default_factory=dict, init=False, repr=False)

    def until(self, day: date, spans: Iterable[Span]) -> pl.DataFrame:
        """Every look at every cohort until ``day`` ended, as the platform's performance table holds them, but for those
        that found what the look before had found whole."""
        rows = [
            (*row, looked)
            for span in spans
            for cohort in days_between(span.first, min(span.last, day))
            for looked in self._looks(span, cohort, day)
            if (row := self._row(span, cohort, looked)) is not None
        ]
        return pl.DataFrame(rows, schema={**COLUMNS, PARTITION: pl.Date}, orient="row")

    def _looks(self, span: Span, cohort: date, day: date) -> list[date]:
        """Until all is known, or for as long as the platform looks."""
        looks = []
        for looked in days_between(cohort, min(day, cohort + FOLLOWED_FOR)):
            looks.append(looked)
            self._row(span, cohort, looked)
            if self._whole.get((span.name, cohort), day) <= looked:
                break
        return looks

    def _row(self, span: Span, cohort: date, looked: date) -> _Row | None:
        """Once all its truths are known, later looks find the same."""
        looked = min(looked, self._whole.get((span.name, cohort), looked))
        key = (span.name, cohort, looked)
        if key not in self._seen:
            found = self._seen[key] = self._look(span, cohort, looked)
            if found is None or found[_ANSWERED] == found[_RESOLVED]:
                self._whole[span.name, cohort] = looked
        return self._seen[key]

    def _look(self, span: Span, cohort: date, looked: date) -> _Row | None:
        asked = self.history.asked.get(cohort)
        if asked is None:
            return None
        asked = asked.filter(pl.col(ASKED_AT) >= self.started)
        given = pl.Series("probability", span.version.answers.of(asked[ROW]))
        answers = asked.drop(ROW).with_columns(given, pl.lit(span.name).alias("model_version"))
        end = day_start(looked + timedelta(days=1), self.history.timezone)
        told = self.history.labels.get(cohort)
        known = self.history.no_labels if told is None else told.filter(pl.col(KNOWN_AT) < end)
        found = cohorts(answers, known, self.history.timezone)
        return found.row(0) if found.height else None


_ANSWERED, _RESOLVED = list(COLUMNS).index("answered"), list(COLUMNS).index("resolved")
