"""Which columns a training set's columns come from: those of the question, of the features and of the label."""

import polars as pl

from ml_platform.features.windows import AS_OF
from ml_platform.spec import HAPPENS_AT, KNOWN_AT, ModelSpec, Project, RequestView
from ml_platform.spec.features import feature_name
from ml_platform.spec.lineage import (
    Column,
    Columns,
    computed_columns,
    label_columns,
    question_columns,
    spine_columns,
    view_columns,
)
from ml_platform.training.training_set import LABEL, LABEL_KNOWN_AT, PART


def training_columns(spec: ModelSpec, project: Project) -> dict[str, Columns]:
    """Column of ``training_sets/<model>`` -> features, and raw columns of the spine and of the label's table.

    A feature comes with the columns that look it up: its entities' and the moment of the event. One that is computed
    when asked comes with those of the values that it reads.
    """
    task, tables = spec.task, project.tables
    question = question_columns(task, tables)
    happens_at = question[task.happens_at]
    found = {task.key: question[task.key], HAPPENS_AT: happens_at, AS_OF: happens_at}
    found |= {name: question[name] for name in task.categorical}
    for view in project.views_of(spec):
        if isinstance(view, RequestView):
            own = computed_columns(view, task, tables)
            for each in view.features:
                read = own[each.name].union(*(found[name] for name in view.looked_up(each)))
                found[feature_name(view.name, each.name)] = read | {Column("features", view.name, each.name)}
            continue
        asked = happens_at.union(*(question[name] for name in view.entity_names))
        found |= {
            feature_name(view.name, each): asked | {Column("features", view.name, each)} for each in view.schema()
        }
    known_at = frozenset({Column("raw", task.label.table, KNOWN_AT)})
    joined = frozenset[Column]().union(*(question[name] for name in task.label.on))
    found[LABEL] = label_columns(task, tables) | joined
    found[LABEL_KNOWN_AT] = known_at | joined
    found[PART] = found[LABEL_KNOWN_AT] | happens_at
    return found


def raw_columns(spec: ModelSpec, project: Project) -> Columns:
    """Every raw column without which the training set cannot be made: of its questions, its label, its features."""
    task, tables = spec.task, project.tables
    views = (view_columns(view, tables) for view in project.feature_views_of(spec))
    known_at = Column("raw", task.label.table, KNOWN_AT)
    return spine_columns(spec, tables).union(label_columns(task, tables), {known_at}, *views)


def column_types(spec: ModelSpec, project: Project) -> dict[str, pl.DataType | type[pl.DataType]]:
    """The columns of ``training_sets/<model>``, in order, with their types."""
    task = spec.task
    spine = _types(pl.LazyFrame(schema=dict(project.tables[task.spine].columns)).with_columns(**task.derive))
    label = _types(pl.LazyFrame(schema=dict(project.tables[task.label.table].columns)).select(task.label.value))
    features = {
        feature_name(view.name, each): pl.Int64 if kind == "int64" else pl.Float64
        for view in project.views_of(spec)
        for each, kind in view.schema().items()
    }
    return {
        task.key: spine[task.key],
        HAPPENS_AT: spine[task.happens_at],
        AS_OF: pl.Datetime("us", "UTC"),
        **{name: spine[name] for name in task.categorical},
        **features,
        LABEL: next(iter(label.values())),
        LABEL_KNOWN_AT: pl.Datetime("us", "UTC"),
        PART: pl.String,
    }


def _types(rows: pl.LazyFrame) -> dict[str, pl.DataType]:
    return dict(rows.collect_schema())
