"""What depends on a raw table, a raw column or a feature: features, models, services, policies, contracts."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from ml_platform.spec.errors import UnknownName
from ml_platform.spec.lineage import (
    Column,
    feature_columns,
    label_columns,
    request_columns,
    spine_columns,
    view_columns,
)
from ml_platform.spec.models import ModelSpec
from ml_platform.spec.project import Project
from ml_platform.spec.tables import KNOWN_AT, SourceTable

PATTERNS = ("raw/<table>", "raw/<table>.<column>", "features/<view>", "features/<view>.<feature>")
_WATCHED = {"features": "inputs", "predictions": "answers", "labels": "labels"}
_ONLY_COMPUTED = "cannot be computed without it, though no value depends on it"


@dataclass(frozen=True)
class Branch:
    """One thing, how it depends on what stands above it, and what depends on it."""

    name: str
    how: str = ""
    below: tuple["Branch", ...] = ()

    def lines(self) -> Iterator[str]:
        """The tree as text, one line a thing."""
        yield f"{self.name}  {self.how}".rstrip()
        for number, branch in enumerate(self.below, start=1):
            first, others = ("└── ", "    ") if number == len(self.below) else ("├── ", "│   ")
            for depth, line in enumerate(branch.lines()):
                yield f"{others if depth else first}{line}"


def impact(project: Project, address: str) -> Branch:
    """Everything that depends on the addressed thing; ``address`` is written as in ``PATTERNS``.

    Raises:
        UnknownName: the project declares nothing of that address; the near ones are named.
    """
    asked = _columns(project, address)
    features = _features(project, asked)
    below = [
        *_contracts(project, asked, own="." in address),
        *(Branch(f"features/{view}.{name}") for view, names in features.items() for name in names),
        *(Branch(f"features/{view}", _ONLY_COMPUTED) for view, names in features.items() if not names),
        *(_model(project, spec, asked, features) for spec in project.models.values()),
    ]
    found = tuple(branch for branch in below if branch is not None and branch.name != address)
    return Branch(address, "" if found else "nothing depends on it", found)


def _columns(project: Project, address: str) -> frozenset[Column]:
    family, _, rest = address.partition("/")
    table, dot, name = rest.partition(".")
    if family == "raw":
        if table not in project.tables:
            raise UnknownName("source table", table, project.tables)
        known = list(project.tables[table].columns)
        kind = f"column of raw/{table}"
    elif family == "features":
        if table not in project.all_views:
            raise UnknownName("feature view", table, project.all_views)
        known = list(project.all_views[table].schema())
        kind = f"feature of features/{table}"
    else:
        everything = [*_addresses(project)]
        near = difflib.get_close_matches(address, everything, n=1, cutoff=0.5)
        raise UnknownName("raw table, column or feature", address, everything if near else PATTERNS)
    if dot and name not in known:
        raise UnknownName(kind, name, known)
    asked = [name] if dot else known
    return frozenset(Column("raw" if family == "raw" else "features", table, each) for each in asked)


def _addresses(project: Project) -> Iterator[str]:
    for table in project.tables.values():
        yield f"raw/{table.name}"
        yield from (f"raw/{table.name}.{column}" for column in table.columns)
    for view in project.all_views.values():
        yield f"features/{view.name}"
        yield from (f"features/{view.name}.{feature}" for feature in view.schema())


def _features(project: Project, asked: frozenset[Column]) -> dict[str, list[str]]:
    """View -> its features that depend on what is asked; a view that only needs it to be computed has none."""
    found: dict[str, list[str]] = {}
    broken: set[str] = set()
    for view in project.views.values():
        columns = feature_columns(view, project.tables)
        names = [name for name, uses in columns.items() if asked & {*uses, Column("features", view.name, name)}]
        if asked & view_columns(view, project.tables):
            broken.add(view.name)
        if names or view.name in broken:
            found[view.name] = names
    reached = asked | {Column("features", view, name) for view, names in found.items() for name in names}
    for request_view in project.request_views.values():
        made_of = request_columns(request_view, project)
        own = request_view.name
        names = [name for name, uses in made_of.items() if reached & {*uses, Column("features", own, name)}]
        if names or broken.intersection(request_view.views_read):
            found[request_view.name] = names
    return found


def _contracts(project: Project, asked: frozenset[Column], *, own: bool) -> Iterator[Branch]:
    """Rules that read what is asked; a table's own ones only if ``own``, for all of a table they say nothing new."""
    for table in project.tables.values():
        for rule, columns in _rules(table):
            mine = all(column.table == table.name for column in columns)
            if asked & columns and (own or not mine):
                yield Branch(f"raw/{table.name}", f"its rule {rule}")


def _rules(table: SourceTable) -> Iterator[tuple[str, frozenset[Column]]]:
    for rule in table.rules:
        columns = {Column("raw", table.name, name) for name in rule.reads}
        if rule.references is not None:
            _, other, key = rule.references
            columns |= {Column("raw", other, name) for name in (key,) if name}
        yield rule.name, frozenset(columns)


def _model(
    project: Project, spec: ModelSpec, asked: frozenset[Column], features: dict[str, list[str]]
) -> Branch | None:
    used = [name for name in spec.views if name in features]
    count = sum(len(features[name]) for name in used)
    how = [f"{count} of its features"] if count else [f"its view {name}" for name in used]
    if asked & spine_columns(spec, project.tables):
        how.append("its question")
    known = Column("raw", spec.task.label.table, KNOWN_AT)
    if asked & {*label_columns(spec.task, project.tables), known}:
        how.append("its label")
    if not how:
        return None
    listed = " and ".join(filter(None, [", ".join(how[:-1]), how[-1]]))
    return Branch(f"models/{spec.name}", f"through {listed}", tuple(_downstream(project, spec)))


def _downstream(project: Project, spec: ModelSpec) -> Iterator[Branch]:
    if spec.policy:
        yield Branch(f"decisions/{spec.policy}", "retrains it")
    for service in project.services.values():
        if service.model == spec.name:
            watching = [policy for policy in project.drift_policies.values() if policy.service == service.name]
            watched = tuple(Branch(f"drift/{policy.name}", f"watches its {_WATCHED[policy.of]}") for policy in watching)
            yield Branch(f"services/{service.name}", "answers with it", watched)
