"""What a service's answers are made of, as a graph of columns: what the search for causes walks up."""

from collections.abc import Iterable
from datetime import timedelta
from math import ceil

from ml_platform.monitoring.drift import ALL
from ml_platform.monitoring.root_cause import Graph
from ml_platform.monitoring.served import PROBABILITY
from ml_platform.spec import FeatureView, Project, RequestView, Service
from ml_platform.spec.features import feature_name
from ml_platform.spec.lineage import (
    Column,
    Columns,
    computed_columns,
    feature_columns,
    label_columns,
    question_columns,
)

LABEL = "value"  # the label's column in a service's labels
# A question's row is known the day before at the latest; it may be asked about on the day after that.
_QUESTION_DAYS = 2
_A_DAY = timedelta(days=1)


def whole(node: Column) -> Column:
    """The table, view or model that a column belongs to."""
    return Column(node.family, node.table, "")


def served_node(project: Project, service: str, name: str) -> Column:
    """The node of a column of the table of served features: a feature of a view, or a column of the question."""
    view, _, feature = name.partition("__")
    if feature and view in project.all_views:
        return Column("features", view, feature)
    return Column("predictions", service, name)


def cause_graph(project: Project, service: Service) -> Graph:
    """Everything that the service's answers and labels are made of, down to raw tables, views' code and the model."""
    spec = project.models[service.model]
    task, tables, own = spec.task, project.tables, service.name
    parents: dict[Column, Columns] = {}
    back: dict[Column, int] = {}
    for view in project.views_of(spec):
        made = computed_columns(view, task, tables) if isinstance(view, RequestView) else feature_columns(view, tables)
        days = _days(view)
        for name, columns in made.items():
            node = Column("features", view.name, name)
            parents[node] = columns | {whole(node)}
            back[node] = days.get(name, _QUESTION_DAYS if any(one.family == "raw" for one in columns) else 0)
    questions = question_columns(task, tables)
    for name in task.categorical:
        node = served_node(project, own, name)
        parents[node], back[node] = questions[name], _QUESTION_DAYS
    inputs = [*task.categorical, *(feature_name(v.name, one) for v in project.views_of(spec) for one in v.schema())]
    used = frozenset(served_node(project, own, name) for name in inputs)
    parents[Column("predictions", own, ALL)] = used
    parents[Column("predictions", own, PROBABILITY)] = used | {Column("models", spec.name, "")}
    label = Column("labels", own, LABEL)
    parents[label], back[label] = label_columns(task, tables), 1
    for node in _raw(parents.values()):
        parents[node] = frozenset({whole(node)})
    return Graph(parents=parents, looks_back=back)


def _days(view: FeatureView | RequestView) -> dict[str, int]:
    """Feature -> how many days back its values depend on raw rows, where it is stored."""
    if isinstance(view, RequestView):
        return {}
    kept = view.online_for or _A_DAY
    return {name: ceil((span or kept) / _A_DAY) for one in view.features for name, span, _ in one.features()}


def _raw(groups: Iterable[Columns]) -> list[Column]:
    return sorted({node for group in groups for node in group if node.family == "raw" and node.name})


def reached(graph: Graph, node: Column) -> frozenset[Column]:
    """Every node that this one is made of."""
    found: set[Column] = set()
    waiting = [node]
    while waiting:
        new = set(graph.parents.get(waiting.pop(), ())) - found
        found |= new
        waiting.extend(new)
    return frozenset(found)


def below(graph: Graph, node: Column) -> frozenset[Column]:
    """Every node that is made of this one."""
    found: set[Column] = set()
    waiting = [node]
    while waiting:
        above = waiting.pop()
        new = {one for one, made_of in graph.parents.items() if above in made_of} - found
        found |= new
        waiting.extend(new)
    return frozenset(found)
