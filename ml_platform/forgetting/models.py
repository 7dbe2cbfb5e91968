"""Which model versions were trained or judged on rows that hold the entity, and their marks in the registry."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import polars as pl

from ml_platform.forgetting.subject import RAW, Subject
from ml_platform.spec import MissingHistory, ModelSpec, UnknownName
from ml_platform.spec.models import HAPPENS_AT
from ml_platform.stores.delta import Lake
from ml_platform.stores.delta_purge import current_rows
from ml_platform.stores.forgettings import AT, ROWS, Gone
from ml_platform.stores.tracking import ModelVersion, Tracking
from ml_platform.training.steps import table_of
from ml_platform.training.training_set import question_rows

Counts = Mapping[str, Mapping[int, int]]


def trained_on(subject: Subject, lake: Lake, tracking: Tracking) -> dict[str, dict[int, int]]:
    """Model -> version -> how many rows of its training set hold the entity; those without any are left out.

    A training set whose version is gone (after an earlier forgetting) is counted by what is left of the raw rows in its
    time: at most so many.
    """
    found: dict[str, dict[int, int]] = {}
    for spec in subject.project.models.values():
        for version in _versions(tracking, spec):
            count = _rows_of(subject, lake, spec, version)
            if count:
                found.setdefault(spec.name, {})[version.version] = count
    return found


def mark(tracking: Tracking, of_this: Counts, gone: Gone, at: datetime) -> None:
    """Tag the versions, and their runs, with all rows that are gone so far and the time of this forgetting."""
    for model, versions in of_this.items():
        for number in versions:
            total = gone.rows[model][number]
            tracking.tag(tracking.version(model, number), {ROWS: str(total), AT: at.isoformat()})


def _versions(tracking: Tracking, spec: ModelSpec) -> Iterator[ModelVersion]:
    try:
        yield from tracking.versions(spec.name)
    except UnknownName:
        return  # none was ever registered


def _rows_of(subject: Subject, lake: Lake, spec: ModelSpec, version: ModelVersion) -> int:
    table, _, number = version.tags.get("training_set", "").partition("@")
    try:
        rows = lake.scan(table or table_of(spec), version=int(number) if number else None)
    except MissingHistory:
        return _rows_in_its_time(subject, lake, spec, version)
    chosen = subject.gone(table)(rows.collect_schema().names())
    return 0 if chosen is None else int(rows.filter(chosen).select(pl.len()).collect().item())


def _rows_in_its_time(subject: Subject, lake: Lake, spec: ModelSpec, version: ModelVersion) -> int:
    bounds = [version.tags.get(name) for name in ("trained_from", "holdout_until")]
    table = f"{RAW[0]}/{spec.task.spine}"
    if None in bounds or not lake.exists(table):
        return 0
    rows = current_rows(lake, table, subject.gone(table))
    if rows.is_empty():
        return 0
    first, last = (datetime.fromisoformat(str(bound)) for bound in bounds)
    return question_rows(spec.task, rows).filter(pl.col(HAPPENS_AT).is_between(first, last)).height
