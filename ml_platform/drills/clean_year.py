"""The project's whole span without a fault, in memory and straight from its sources: no state folder is needed."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property

import polars as pl

from ml_platform.features.request_values import RequestPlan
from ml_platform.sources.ingest import fetch
from ml_platform.spec import (
    ASKED_AT,
    HAPPENS_AT,
    KNOWN_AT,
    DeclarationError,
    FeatureView,
    ModelSpec,
    Project,
    Service,
    SourceTable,
)
from ml_platform.spec.calendar import day_start
from ml_platform.spec.features import feature_name
from ml_platform.spec.request_views import request_fields
from ml_platform.stores.delta import PARTITION
from ml_platform.training.estimators import train
from ml_platform.training.model import Model
from ml_platform.training.training_set import (
    LABEL,
    LABEL_KNOWN_AT,
    PART,
    TRAIN,
    join_features,
    question_rows,
    reach,
    split,
)

_CLOSED_AFTER = timedelta(minutes=5)  # the daily assets are made a few minutes after midnight
_MARGIN = timedelta(days=2)  # a plan is known a day before, and counts for one more
_SETTLED = timedelta(days=8)  # a champion's first week is what later ones are compared with
_SERVES_FOR = timedelta(days=60)  # the longest that a drill asks one version, and some days
PROBABILITY = "probability"
Frames = Mapping[str, pl.DataFrame]


@dataclass(frozen=True, kw_only=True)
class CleanYear:
    """raw: the good rows of every table, daily ones with their day. asked: every question with its features and truth.

    The truth (``label``, null where there is none, and ``label_known_at``) is as it was learned in the end.
    """

    project: Project
    service: Service
    spec: ModelSpec
    raw: Frames
    asked: pl.DataFrame
    threads: int
    _models: dict[date, Model] = field(default_factory=dict)
    _answers: dict[date, pl.DataFrame] = field(default_factory=dict)

    @property
    def last(self) -> date:
        """The last day that is whole."""
        return self.asked[PARTITION].max()  # type: ignore[return-value]

    def closes(self, day: date) -> datetime:
        """When the daily assets of a day are made."""
        return day_start(day + timedelta(days=1), self.project.timezone) + _CLOSED_AFTER

    def read(self, first: date, last: date) -> pl.DataFrame:
        """The questions that were asked on these days."""
        return self.asked.filter(pl.col(PARTITION).is_between(first, last))

    @cached_property
    def features(self) -> list[str]:
        """What is served beside the categorical entities, in order."""
        return feature_names(self.project, self.spec)

    def champion(self, day: date) -> date:
        """When the version was trained that serves on a day: the first of a month, a week and more before."""
        return max((day - _SETTLED).replace(day=1), self.project.serves_from)

    def model(self, trained: date) -> Model:
        """The declared model, trained when that day began on what was known then."""
        if trained not in self._models:
            now = day_start(trained, self.project.timezone)
            begins = max(day_start(self.project.ready_from, self.project.timezone), reach(self.spec, now) or now)
            known = self.asked.filter(
                pl.col(LABEL).is_not_null(), pl.col(LABEL_KNOWN_AT) <= now, pl.col(HAPPENS_AT).is_between(begins, now)
            )
            rows = split(known.sort(HAPPENS_AT, self.spec.task.key), self.spec, now).filter(pl.col(PART) == TRAIN)
            self._models[trained] = train(self.spec, rows, threads=self.threads)
        return self._models[trained]

    def answered(self, rows: pl.DataFrame, trained: date) -> pl.DataFrame:
        """What the version trained on that day answers: key, times, truth and probability."""
        given = pl.Series(PROBABILITY, self.model(trained).predict(rows), dtype=pl.Float64)
        return rows.select(self.spec.task.key, ASKED_AT, PARTITION, LABEL, LABEL_KNOWN_AT, given)

    def answers(self, trained: date, until: date) -> pl.DataFrame:
        """Its answers to all questions since it was trained."""
        if trained not in self._answers:
            self._answers[trained] = self.answered(self.read(trained, trained + _SERVES_FOR), trained)
        return self._answers[trained].filter(pl.col(PARTITION) <= until)


def feature_names(project: Project, spec: ModelSpec) -> list[str]:
    """Full names of the model's features, in the order of the served vector."""
    return [feature_name(view.name, name) for view in project.views_of(spec) for name in view.schema()]


def clean_year(
    project: Project, service: Service, *, until: date, threads: int, track: Callable[[Iterable[date]], Iterable[date]]
) -> CleanYear:
    """Read, judge and compute everything once. ``track`` is given the months as they are worked on.

    Raises:
        SourceError: a source could not be read.
        DeclarationError: the contract refuses what ought to be clean.
    """
    spec = project.models[service.model]
    raw = read_clean(project, until)
    parts = [_asked_in(project, spec, raw, *span) for span in _months(project, until, track)]
    return CleanYear(project=project, service=service, spec=spec, raw=raw, asked=pl.concat(parts), threads=threads)


def read_clean(project: Project, until: date) -> dict[str, pl.DataFrame]:
    """The good rows of every table, those that rules refer to first."""
    raw: dict[str, pl.DataFrame] = {}
    now = day_start(until + timedelta(days=1), project.timezone)
    for table in sorted(project.tables.values(), key=lambda table: len(referred(table))):
        found = fetch(table, project.starts, until, now, project.timezone, raw)
        if found.refusal:
            raise DeclarationError(f"raw/{table.name} is refused without any fault planted: {found.refusal}")
        raw[table.name] = found.good
    return raw


def referred(table: SourceTable) -> list[str]:
    """The tables that its rules refer to."""
    return list(dict.fromkeys(rule.references[1] for rule in table.rules if rule.references))


def _months(
    project: Project, until: date, track: Callable[[Iterable[date]], Iterable[date]]
) -> Iterator[tuple[date, date]]:
    firsts = [project.starts]
    while (after := (firsts[-1].replace(day=1) + timedelta(days=32)).replace(day=1)) <= until:
        firsts.append(after)
    for first in track(firsts):
        yield first, min((first.replace(day=1) + timedelta(days=32)).replace(day=1) - timedelta(days=1), until)


def _asked_in(project: Project, spec: ModelSpec, raw: Frames, first: date, last: date) -> pl.DataFrame:
    asked = questions(project, spec, raw, first, last)
    return with_truths(spec, join_features(asked, within(project, spec, raw, first, last), project.views_of(spec)), raw)


def questions(project: Project, spec: ModelSpec, frames: Frames, first: date, last: date) -> pl.DataFrame:
    """What is asked on the local days [first, last], of the timetable as it was known then; each question once."""
    task = spec.task
    rows = question_rows(task, frames[task.spine], request_fields(project.views_of(spec)))
    day = pl.col(ASKED_AT).dt.convert_time_zone(project.timezone).dt.date()
    known = rows.with_columns(frames[task.spine][KNOWN_AT].alias(KNOWN_AT), day.alias(PARTITION))
    asked = known.filter(pl.col(KNOWN_AT) <= pl.col(ASKED_AT), pl.col(PARTITION).is_between(first, last))
    return asked.drop(KNOWN_AT).unique(task.key, keep="first", maintain_order=True).sort(ASKED_AT, task.key)


def within(project: Project, spec: ModelSpec, frames: Frames, first: date, last: date) -> dict[str, pl.DataFrame]:
    """What the features of these days look back on."""
    back = max(view.lookback for view in project.feature_views_of(spec)) + _MARGIN
    start, end = day_start(first, project.timezone) - back, day_start(last + timedelta(days=1), project.timezone)
    reached = pl.col(KNOWN_AT).is_between(start, end)
    return {name: rows.filter(reached) if project.tables[name].partitioned else rows for name, rows in frames.items()}


def with_truths(spec: ModelSpec, rows: pl.DataFrame, clean: Frames) -> pl.DataFrame:
    """The questions with their truths as they really were."""
    label = spec.task.label
    truths = clean[label.table].select(*label.on, label.value.alias(LABEL), pl.col(KNOWN_AT).alias(LABEL_KNOWN_AT))
    return rows.join(truths, on=list(label.on), how="left", maintain_order="left", validate="m:1")


def refreshed(year: CleanYear, frames: Frames, table: str, first: date, last: date) -> pl.DataFrame:
    """The questions of these days with what the table takes part in computed anew from ``frames``."""
    project, spec = year.project, year.spec
    seen = within(project, spec, frames, first, last)
    views = project.views_of(spec)
    if table == spec.task.spine:
        asked = questions(project, spec, frames, first, last)
        return with_truths(spec, join_features(asked, seen, views), year.raw).select(year.asked.columns)
    clean = year.read(first, last)
    touched = [view for view in views if isinstance(view, FeatureView) and table in view.sources]
    names = [feature_name(view.name, name) for view in touched for name in view.schema()]
    joined = clean.with_columns(join_features(clean.drop(names), seen, touched).select(names).get_columns())
    plan = RequestPlan(views)
    return joined.with_columns(plan.of_frame(joined).get_columns()) if plan.names else joined
