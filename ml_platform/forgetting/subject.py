"""What is to be forgotten: an entity's value, the predictions that were asked about it, and the rows that hold it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.spec import Project
from ml_platform.spec.entities import EntityValue, holds, recognised, tasks, text_of
from ml_platform.spec.models import Task
from ml_platform.stores.delta import Lake
from ml_platform.stores.delta_purge import Gone, current_rows, old_rows
from ml_platform.stores.prediction_log_purge import records
from ml_platform.stores.texts import Words

RAW = ("raw", "quarantine")
GROUPS = "performance_slices"  # a group may be an entity
PREDICTION, ENTITIES = "prediction_id", "entities"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """ids: a task's key column -> the keys of the rows predicted that hold the entity, as text."""

    project: Project
    entity: EntityValue
    ids: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def tables(self) -> list[str]:
        """The raw tables whose rows can hold the entity."""
        return [table for table in self.project.tables if self.entity.name in recognised(self.project, table)]

    def gone(self, table: str) -> Gone:
        """Which rows of a table of the lake are to go: by the names of its columns, as ``stores.delta_purge`` asks."""

        def chosen(names: Iterable[str]) -> pl.Expr | None:
            conditions = list(self._conditions(table, set(names)))
            return pl.any_horizontal(conditions) if conditions else None

        return chosen

    def _conditions(self, table: str, names: set[str]) -> Iterator[pl.Expr]:
        kind, _, name = table.partition("/")
        values = [self.entity.text]
        if kind in RAW and name in self.project.tables:
            told = recognised(self.project, name).get(self.entity.name, ())
            known = tuple(each for each in told if set(each.meta.root_names()) <= names)
            if known:
                yield holds(known, values)
        elif self.entity.name in names:
            yield holds((pl.col(self.entity.name),), values)
        if kind not in RAW:
            yield from (holds((pl.col(key),), sorted(ids)) for key, ids in self.ids.items() if key in names and ids)
            ids = self.predictions_of(name)
            if PREDICTION in names and ids:
                yield holds((pl.col(PREDICTION),), sorted(ids))
        if kind == GROUPS and "group" in names:
            yield (pl.col("group") == values[0]).fill_null(False)
        if ENTITIES in names:
            yield (pl.col(ENTITIES).str.json_path_match(f"$['{self.entity.name}']") == values[0]).fill_null(False)

    def texts(self) -> dict[str, frozenset[str]]:
        """Values by column that a table's log may not say as the bounds of a file."""
        ids = frozenset[str]().union(*self.ids.values())
        return {**self.ids, PREDICTION: ids, self.entity.name: frozenset([self.entity.text])}

    def predictions_of(self, service: str) -> frozenset[str]:
        """The ids of the predictions about it that a service answered; those of all if none is declared so."""
        declared = self.project.services.get(service)
        if declared is None:
            return frozenset[str]().union(*self.ids.values())
        return self.ids.get(self.project.models[declared.model].task.key, frozenset())

    def asked_in(self, record: Mapping[str, Any]) -> bool:
        """Whether a record of the prediction log asked about it."""
        value = record.get(ENTITIES, {}).get(self.entity.name)
        return value is not None and str(value) == self.entity.text

    def words(self, token: str) -> Words:
        """What names it in texts."""
        project = self.project
        declared = (project.tables, project.all_views, project.models, project.services, project.retrain_policies)
        columns = (name for table in project.tables.values() for name in table.columns)
        features = (name for view in project.views.values() for name in view.schema())
        names = {project.name, *(name for things in declared for name in things), *columns, *features}
        ids = frozenset[str]().union(*self.ids.values()) - {self.entity.text}
        return Words(
            entity=self.entity.name,
            text=self.entity.text,
            ids=ids,
            names=frozenset(names | set(project.drift_policies)),
            token=token,
        )


def gather(project: Project, entity: EntityValue, lake: Lake, log: Path) -> Subject:
    """With the ids of all predictions about it: by the rows that were predicted, now or in an earlier version, and by
    what was asked."""
    bare = Subject(project=project, entity=entity)
    ids: dict[str, set[str]] = {}
    for task in tasks(project):
        ids.setdefault(task.key, set()).update(_ids(task, bare, lake, log))
    return Subject(project=project, entity=entity, ids={key: frozenset(found) for key, found in ids.items()})


def _ids(task: Task, bare: Subject, lake: Lake, log: Path) -> Iterator[str]:
    if task.key == bare.entity.name:
        yield bare.entity.text
    services = [s.name for s in bare.project.services.values() if bare.project.models[s.model].task is task]
    for table in (f"{kind}/{task.spine}" for kind in RAW):
        for rows in _rows(bare, lake, table):
            yield from _texts(rows.with_columns(**task.derive), task.key)
    for service in services:
        for rows in _rows(bare, lake, f"predictions/{service}"):
            yield from _texts(rows, PREDICTION)
        yield from (str(record["id"]) for record in records(log, "predictions", service) if bare.asked_in(record))


def _rows(bare: Subject, lake: Lake, table: str) -> Iterator[pl.DataFrame]:
    """The table's rows that hold the entity, also of files that are left of earlier versions."""
    if lake.exists(table):
        gone = bare.gone(table)
        yield from (rows for rows in (current_rows(lake, table, gone), *old_rows(lake, table, gone)) if rows.height)


def _texts(rows: pl.DataFrame, column: str) -> list[str]:
    return rows.select(text_of(pl.col(column))).to_series().drop_nulls().unique().to_list()
