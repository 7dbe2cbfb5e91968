"""One thing that a project knows by an entity's value, and by which columns of its tables it is recognised.

Read off the declarations alone: a row of a raw table holds an entity in the column of its name, in a column that a view
or a task derives under that name, and in one that another table's rule says the entity's column refers to.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ml_platform.spec.errors import DeclarationError, UnknownName
from ml_platform.spec.models import Task
from ml_platform.spec.project import Project

_TEXT, _NUMBER = "string", "int64"
Recognised = Mapping[str, tuple[pl.Expr, ...]]


@dataclass(frozen=True, kw_only=True)
class EntityValue:
    """``tailnum=N784JB``: ``text`` is the value as it is written, also of a whole number."""

    name: str
    text: str

    def __str__(self) -> str:
        """As on the command line."""
        return f"{self.name}={self.text}"


def entity_types(project: Project) -> dict[str, str]:
    """Every entity that views or tasks name -> ``string`` or ``int64``; the key of a task is one, too."""
    found: dict[str, str] = {entity.name: entity.dtype for view in project.views.values() for entity in view.entities}
    for task in tasks(project):
        columns = pl.LazyFrame(schema=dict(project.tables[task.spine].columns)).with_columns(**task.derive)
        schema = columns.collect_schema()
        for name in (task.key, *task.entities):
            found.setdefault(name, _NUMBER if schema[name].is_integer() else _TEXT)
    return found


def tasks(project: Project) -> list[Task]:
    """The tasks of all models, each once."""
    return list({id(spec.task): spec.task for spec in project.models.values()}.values())


def entity_value(project: Project, written: str) -> EntityValue:
    """What ``<entity>=<value>`` names.

    Raises:
        UnknownName: the project has no such entity.
        DeclarationError: it is written otherwise, or the value is none of the entity's type.
    """
    name, equals, text = written.partition("=")
    if not (name and equals and text):
        raise DeclarationError(f"{written!r} is not written as <entity>=<value>, such as tailnum=N784JB")
    kinds = entity_types(project)
    if name not in kinds:
        raise UnknownName("entity", name, kinds)
    if kinds[name] == _NUMBER:
        try:
            text = str(int(text))
        except ValueError as error:
            raise DeclarationError(f"{name} is a whole number, and {text!r} is none") from error
    return EntityValue(name=name, text=text)


def recognised(project: Project, table: str) -> Recognised:
    """Entity -> the expressions over a raw table's rows of which one equals its value; entities without any are left
    out."""
    columns = project.tables[table].columns
    found: dict[str, dict[str, pl.Expr]] = {}
    for name in entity_types(project):
        if name in columns:
            found.setdefault(name, {})[name] = pl.col(name)
        for expression in _derived(project, table, name):
            found.setdefault(name, {})[str(expression.meta.serialize())] = expression
        for column in _referred(project, table, name):
            found.setdefault(name, {})[column] = pl.col(column)
    return {name: tuple(expressions.values()) for name, expressions in found.items()}


def _derived(project: Project, table: str, name: str) -> Iterator[pl.Expr]:
    for view in project.views.values():
        if view.source == table and name in view.entity_names and name in view.derive:
            yield view.derive[name]
    for task in tasks(project):
        if task.spine == table and name in task.derive:
            yield task.derive[name]


def _referred(project: Project, table: str, name: str) -> Iterator[str]:
    references = (rule.references for other in project.tables.values() for rule in other.rules if rule.references)
    yield from (column for own, other, column in references if (own, other) == (name, table))


def text_of(expression: pl.Expr) -> pl.Expr:
    """An entity's value as it is written, whatever its type."""
    return expression.cast(pl.String, strict=False)


def holds(expressions: Sequence[pl.Expr], texts: Sequence[str]) -> pl.Expr:
    """Whether one of the expressions is one of these values, never null."""
    return pl.any_horizontal(text_of(each).is_in(list(texts)).fill_null(False) for each in expressions)
