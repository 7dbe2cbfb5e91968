"""What a model could be asked and what became known, over all of the past: made once, then looked at as of any moment.

Features are as of each question's moment, so it does not matter when they are computed; labels are looked at as they
were known at the moment in question, corrections included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from hashlib import sha256

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.features.windows import AS_OF
from ml_platform.sources.whole import read_whole
from ml_platform.spec import ASKED_AT, HAPPENS_AT, KNOWN_AT, ModelSpec, Project, TooFewLabels
from ml_platform.spec.calendar import day_of, day_start, days_between
from ml_platform.stores.delta import Lake
from ml_platform.training.training_set import (
    LABEL,
    LABEL_KNOWN_AT,
    QUANTITY,
    content_hash,
    join_features,
    questions_asked,
    reach,
    set_columns,
    truths_at,
)

ROW, ASKED_ON = "row", "asked_on"
_ID, _VALUE = "prediction_id", "value"


@dataclass(frozen=True, kw_only=True)
class History:
    """One model's questions with their features, and all that was ever said about their truth.

    questions: one row a question, by ``happens_at`` and key, with ``row`` (its place), ``asked_on`` (the local day) and
    columns of a training set but its labels. outcomes: the label's raw table. columns: of a training set.
    source: where the raw tables were read, in words. until: the last local day that they reach.
    """

    spec: ModelSpec
    timezone: str
    questions: pl.DataFrame = field(repr=False)
    outcomes: pl.DataFrame = field(repr=False)
    columns: tuple[str, ...]
    until: date
    source: str = ""
    _digests: dict[date, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def labelled_at(self, now: datetime, spec: ModelSpec | None = None) -> pl.DataFrame:
        """What a training at ``now`` could know: the columns of ``training_rows``, and ``row``.

        spec: with another window than the history's.
        """
        start, task = reach(spec or self.spec, now), self.spec.task
        within = pl.col(HAPPENS_AT) < now if start is None else pl.col(HAPPENS_AT).is_between(start, now, closed="left")
        asked = self.questions.filter(within)
        about = self.outcomes.join(asked.select(task.label.on).unique(), on=list(task.label.on), how="semi")
        truths = truths_at(task, about, now).drop_nulls(LABEL)
        joined = asked.join(truths, on=list(task.label.on), how="inner", validate="m:1", maintain_order="left")
        return joined.select(*self.columns, ROW)

    def maturity(self, first: datetime, now: datetime) -> float:
        """Share (0..1) of the events in [first, now) whose outcome is known at ``now``; 0.0 where there is none."""
        events = self.questions.filter(pl.col(HAPPENS_AT).is_between(first, now, closed="left"))
        on = list(self.spec.task.label.on)
        known = self.outcomes.filter(pl.col(KNOWN_AT) <= now).select(on).unique()
        return events.join(known, on=on, how="semi").height / events.height if events.height else 0.0

    @cached_property
    def truths(self) -> pl.DataFrame:
        """``row``, ``label`` of every question, as it is known in the end; null where there is no truth."""
        on = list(self.spec.task.label.on)
        last = self.outcomes[KNOWN_AT].max()
        assert isinstance(last, datetime)
        told = truths_at(self.spec.task, self.outcomes, last)
        joined = self.questions.select(ROW, *on).join(told, on=on, how="left", maintain_order="left", validate="m:1")
        return joined.select(ROW, pl.col(LABEL).cast(pl.Float64))

    @cached_property
    def labels(self) -> Mapping[date, pl.DataFrame]:
        """By the day of asking what a prediction log holds of truths: ``prediction_id``, ``value``, ``known_at``."""
        task = self.spec.task
        asked = self.questions.select(*dict.fromkeys([task.key, *task.label.on]), ASKED_ON)
        told = self.outcomes.select(*task.label.on, KNOWN_AT, task.label.value.cast(pl.Int64).alias(_VALUE))
        named = told.join(asked, on=list(task.label.on), how="inner")
        rows = named.select(ASKED_ON, pl.col(task.key).cast(pl.String).alias(_ID), _VALUE, KNOWN_AT)
        return {day: part.drop(ASKED_ON) for (day,), part in rows.group_by(ASKED_ON)}

    @property
    def no_labels(self) -> pl.DataFrame:
        """Of a day of which nothing is known."""
        return pl.DataFrame(schema={_ID: pl.String, _VALUE: pl.Int64, KNOWN_AT: pl.Datetime("us", "UTC")})

    @property
    def inputs(self) -> list[str]:
        """The columns that a model answers from."""
        told = {self.spec.task.key, HAPPENS_AT, AS_OF, LABEL, LABEL_KNOWN_AT, QUANTITY}
        return [name for name in self.columns if name not in told]

    @cached_property
    def asked(self) -> Mapping[date, pl.DataFrame]:
        """By the day of asking: ``prediction_id``, ``asked_at`` and ``row``."""
        named = pl.col(self.spec.task.key).cast(pl.String).alias(_ID)
        rows = self.questions.select(ASKED_ON, named, ASKED_AT, ROW)
        return {day: part.drop(ASKED_ON) for (day,), part in rows.group_by(ASKED_ON, maintain_order=True)}

    @cached_property
    def months(self) -> NDArray[np.int64]:
        """The row with which each month of asking begins."""
        month = self.questions[ASKED_ON].dt.truncate("1mo")
        return np.flatnonzero((month != month.shift(1)).fill_null(True).to_numpy())

    def digest(self, first: datetime, end: datetime) -> str:
        """A text that differs when anything about the events of [first, end)'s local days does."""
        days = days_between(day_of(first, self.timezone), day_of(end, self.timezone))
        return sha256("".join(self._digest(day) for day in days).encode()).hexdigest()

    def _digest(self, day: date) -> str:
        if not self._digests:
            self._digests.update(_by_day(self.questions, self.outcomes, self.spec, self.timezone))
        return self._digests.get(day, "")


def _by_day(questions: pl.DataFrame, outcomes: pl.DataFrame, spec: ModelSpec, timezone: str) -> dict[date, str]:
    """Of each local day of events: a digest of its questions and of every version of their truths."""
    on = list(spec.task.label.on)
    day = pl.col(HAPPENS_AT).dt.convert_time_zone(timezone).dt.date().alias("_day")
    dated = questions.drop(ROW, ASKED_ON).with_columns(day)
    told = outcomes.join(dated.select(*on, "_day"), on=on, how="inner").sort(KNOWN_AT, *on)
    found = {key[0]: content_hash(part) for key, part in dated.group_by("_day", maintain_order=True)}
    for key, part in told.group_by("_day", maintain_order=True):
        found[key[0]] += content_hash(part)
    return found


def history(
    project: Project, spec: ModelSpec, frames: Mapping[str, pl.DataFrame], *, until: date, source: str = ""
) -> History:
    """Compute every question's features once. frames: the raw tables that the model needs, whole, by name.

    Raises:
        TooFewLabels: nothing was ever asked.
    """
    task, views, since = spec.task, project.views_of(spec), day_start(project.ready_from, project.timezone)
    end = day_start(until + timedelta(days=1), project.timezone)
    asked = questions_asked(task, frames[task.spine], views)
    asked = asked.filter(pl.col(HAPPENS_AT) >= since, pl.col(ASKED_AT) < end).sort(HAPPENS_AT, task.key)
    if asked.is_empty():
        raise TooFewLabels(
            f"nothing was asked of {spec.name} from {project.ready_from} to {until}: raw/{task.spine} holds no such row"
        )
    columns = set_columns(task, views)
    joined = join_features(asked, frames, views)
    day = pl.col(ASKED_AT).dt.convert_time_zone(project.timezone).dt.date().alias(ASKED_ON)
    kept = dict.fromkeys([*task.label.on, ASKED_AT, *(name for name in columns if name in joined.columns)])
    return History(
        spec=spec,
        timezone=project.timezone,
        questions=joined.select(*kept, day).with_row_index(ROW),
        outcomes=frames[task.label.table],
        columns=tuple(columns),
        until=until,
        source=source,
    )


def read_history(project: Project, spec: ModelSpec, lake: Lake, until: date) -> History:
    """From the raw tables of the lake if they reach ``until``, else from the sources.

    Raises:
        SourceError: a source could not be read.
    """
    label = f"raw/{spec.task.label.table}"
    if lake.exists(label) and max(lake.days(label), default=date.min) >= until:
        names = dict.fromkeys([spec.task.spine, spec.task.label.table, *_tables(project, spec)])
        frames = {name: lake.read(f"raw/{name}") for name in names}
        return history(project, spec, frames, until=max(lake.days(label)), source=f"the raw tables in {lake.root}")
    frames = read_whole(project, until)
    return history(project, spec, frames, until=until, source="the sources, since the raw tables do not reach so far")


def _tables(project: Project, spec: ModelSpec) -> list[str]:
    return [table for view in project.feature_views_of(spec) for table in view.sources]
