"""Which columns a declaration reads: raw columns behind every feature, question and label.

Read off the declarations alone, expressions included. The table's key counts, since a later row with the same key takes
an earlier one's place.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from ml_platform.spec.features import Active, Feature, FeatureView
from ml_platform.spec.models import ASKED_AT, HAPPENS_AT, ModelSpec, Task
from ml_platform.spec.project import Project
from ml_platform.spec.request_views import Computed, RequestView
from ml_platform.spec.tables import KNOWN_AT, SourceTable

Tables = Mapping[str, SourceTable]
ALL_COLUMNS = "*"  # a column's name where a table is refused as a whole


@dataclass(frozen=True, order=True)
class Column:
    """A column of a table: ``raw/<table>.<name>``, or a feature of a view: ``features/<table>.<name>``.

    Where causes are looked for also what a service answered (``predictions/<service>.probability``) or learned
    (``labels/<service>.value``), and, without a name, a table, a view or a model as a whole.
    """

    family: Literal["raw", "features", "predictions", "labels", "models"]
    table: str
    name: str

    def __str__(self) -> str:
        """As it is written on the command line."""
        return f"{self.family}/{self.table}" + (f".{self.name}" if self.name else "")


Columns = frozenset[Column]


def used_names(view: FeatureView, feature: Feature) -> frozenset[str]:
    """Columns of the view's source, derived ones by their own names, that the feature's values are made of."""
    own = {feature.opened_at, *feature.key} if isinstance(feature, Active) else {feature.column, view.time}
    # The key says which row corrects which.
    return frozenset(own | {KNOWN_AT, *view.entity_names, *view.key} | _condition(view))


def _condition(view: FeatureView) -> set[str]:
    return set() if view.where is None else set(view.where.meta.root_names())


def feature_columns(view: FeatureView, tables: Tables) -> dict[str, Columns]:
    """Feature -> the raw columns that its values depend on, in declared order."""
    found: dict[str, Columns] = {}
    for feature in view.features:
        columns = _raw(view, used_names(view, feature), tables) | _selected(view, tables)
        if isinstance(feature, Active):
            columns |= {Column("raw", table, name) for table in feature.closed_by for name in (*feature.key, KNOWN_AT)}
        found |= {name: columns for name, _, _ in feature.features()}
    return found


def table_columns(view: FeatureView, tables: Tables) -> dict[str, Columns]:
    """Entity or feature -> the raw columns behind it."""
    return {name: _raw(view, [name], tables) for name in view.entity_names} | feature_columns(view, tables)


def view_columns(view: FeatureView, tables: Tables) -> Columns:
    """Every raw column without which the view cannot be computed, or a row not be told from the others.

    Besides those of its features: what is derived though no feature uses it, its time, and its source's key.
    """
    columns = _raw(view, {*view.derive, *view.entity_names, *view.key, view.time, KNOWN_AT}, tables)
    return columns.union(*feature_columns(view, tables).values())


def _raw(view: FeatureView, names: Iterable[str], tables: Tables) -> Columns:
    return _behind(names, view.derive, view.source, tables)


def _selected(view: FeatureView, tables: Tables) -> Columns:
    """All columns, if the view's condition selects some by type or pattern: which these are, is not said anywhere."""
    if view.where is None or not view.where.meta.has_multiple_outputs():
        return frozenset()
    return _raw(view, {*tables[view.source].columns, *view.derive}, tables)


def _behind(names: Iterable[str], derive: Mapping[str, pl.Expr], table: str, tables: Tables) -> Columns:
    """The raw columns behind names of which some are derived; a derived column is made of raw ones, at one step."""
    found: set[str] = set()
    for name in names:
        found |= roots(derive[name], tables[table].columns) if name in derive else {name}
    return frozenset(Column("raw", table, name) for name in found)


def roots(expression: pl.Expr, columns: Collection[str]) -> set[str]:
    """The columns that an expression reads: all of them, if it selects some by type or pattern."""
    return set(columns) if expression.meta.has_multiple_outputs() else set(expression.meta.root_names())


def question_columns(task: Task, tables: Tables) -> dict[str, Columns]:
    """Column of a question (key, entities, the label's join, ``happens_at``) -> raw columns of the spine behind it."""
    names = dict.fromkeys([task.key, *task.entities, *task.label.on, task.happens_at])
    return {name: _behind([name], task.derive, task.spine, tables) for name in names}


def computed_columns(view: RequestView, task: Task, tables: Tables) -> dict[str, Columns]:
    """Feature -> what a task's question makes it of: features of other views, raw columns of the task's spine."""
    spine = {HAPPENS_AT: task.happens_at, ASKED_AT: task.happens_at}  # asked a fixed time before it happens
    found: dict[str, Columns] = {}
    for feature in view.features:
        names = [spine.get(name, name) for name in feature.reads if name in view.of_request]
        found[feature.name] = looked_up_columns(view, feature) | _behind(names, task.derive, task.spine, tables)
    return found


def looked_up_columns(view: RequestView, feature: Computed) -> Columns:
    """The features of other views that a request feature is made of."""
    parts = (name.partition("__") for name in view.looked_up(feature))
    return frozenset(Column("features", other, name) for other, _, name in parts)


def request_columns(view: RequestView, project: Project) -> dict[str, Columns]:
    """Feature -> the features and raw columns that it is made of in the questions of all models that use it."""
    found = {feature.name: looked_up_columns(view, feature) for feature in view.features}
    for spec in project.models.values():
        if view.name in spec.views:
            for name, columns in computed_columns(view, spec.task, project.tables).items():
                found[name] |= columns
    return found


def label_columns(task: Task, tables: Tables) -> Columns:
    """The raw columns of the label's value, and those by which it finds its question, on its own side."""
    label = task.label
    names = {*label.on, *roots(label.value, tables[label.table].columns)}
    return frozenset(Column("raw", label.table, name) for name in names)


def spine_columns(spec: ModelSpec, tables: Tables) -> Columns:
    """Every column of the spine without which the model's questions cannot be made: ``known_at`` included."""
    task = spec.task
    columns = _behind([*task.derive, KNOWN_AT], task.derive, task.spine, tables)
    columns |= {Column("raw", task.spine, KNOWN_AT)}
    return columns.union(*question_columns(task, tables).values())
