"""What stands behind a place in the data's way: the alarm on a raw column speaks for everything that is made of it.

A place is written as in `ml-platform impact`: ``raw/<table>``, ``raw/<table>.<column>``, ``features/<view>.<feature>``,
or the key of any other asset.
"""

from collections.abc import Iterator

from ml_platform.spec.errors import UnknownName
from ml_platform.spec.impact import Branch, impact
from ml_platform.spec.lineage import label_columns
from ml_platform.spec.project import Project

_OF_COLUMNS = ("raw", "features")  # families whose lineage goes by columns


def behind(project: Project, place: str) -> frozenset[str]:
    """Every place that is wrong, late or missing if this one is; without itself.

    The loop is cut where it closes through the lake: a decision stands behind a model, the next version of the model
    not behind the decision. Nor is a table behind its own columns, though its contract reads them: it is the whole that
    speaks for its parts. A place that the project does not declare (any more) has nothing behind it.
    """
    reached = set(_by_columns(project, place)) if place.partition("/")[0] in _OF_COLUMNS else {place}
    if "." not in place:  # a whole table that is late makes whole tables late
        reached |= {each.partition(".")[0] for each in reached}
    models = {name.removeprefix("models/") for name in reached if name.startswith("models/")}
    reached |= {f"training_sets/{name}" for name in models if place != f"models/{name}"}
    reached |= set(_labels(project, {place, *reached}))
    tables = {name.partition(".")[0].removeprefix("raw/") for name in {*reached, place} if name.startswith("raw/")}
    reached |= {watching for table in tables for watching in _watching(project, table)}
    follows = _follows(project)
    waiting = list(reached)
    while waiting:
        new = follows.get(waiting.pop(), frozenset()) - reached
        reached |= new
        waiting += new
    return frozenset(reached - {place, place.partition(".")[0]})


def places(project: Project) -> Iterator[str]:
    """Every place that has something behind it: raw tables, views, their columns, and the assets of the loop."""
    for table in project.tables.values():
        yield f"raw/{table.name}"
        yield from (f"raw/{table.name}.{column}" for column in table.columns)
    for view in project.all_views.values():
        yield f"features/{view.name}"
        yield from (f"features/{view.name}.{feature}" for feature in view.schema())
    yield from _follows(project)


def _by_columns(project: Project, place: str) -> Iterator[str]:
    try:
        found = impact(project, place)
    except UnknownName:
        return
    yield from _names(found)
    asset, _, column = place.partition(".")
    if not column:  # a whole table: its own columns, too
        yield from (each for each in places(project) if each.startswith(f"{asset}."))


def _names(branch: Branch) -> Iterator[str]:
    for below in branch.below:
        yield below.name
        yield from _names(below)


def _labels(project: Project, named: set[str]) -> Iterator[str]:
    """The services whose truths are made of what is named."""
    for service in project.services.values():
        task = project.models[service.model].task
        made_of = {str(column) for column in label_columns(task, project.tables)}
        if named & {*made_of, f"raw/{task.label.table}"}:
            yield f"labels/{service.name}"


def _watching(project: Project, table: str) -> set[str]:
    """What judges a raw table."""
    drifts = {f"drift/{drift.name}" for drift in project.drift_policies.values() if drift.table == table}
    return {*drifts, f"profiles/raw/{table}", f"reviews/{project.name}"}


def _follows(project: Project) -> dict[str, frozenset[str]]:
    """Asset -> those right behind it, from the training set on."""
    found: dict[str, set[str]] = {}
    for spec in project.models.values():
        found.setdefault(f"training_sets/{spec.name}", set()).add(f"models/{spec.name}")
        found.setdefault(f"models/{spec.name}", set()).add(f"evaluations/{spec.name}")
    for service in project.services.values():
        own, policy = service.name, project.models[service.model].policy
        found[f"models/{service.model}"] |= {f"services/{own}"}
        found[f"services/{own}"] = {f"predictions/{own}", f"batch_predictions/{own}"} | {
            f"rollouts/{rollout.name}" for rollout in project.rollout_policies.values() if rollout.service == own
        }
        drifts = {f"drift/{drift.name}" for drift in project.drift_policies.values() if drift.service == own}
        judging = {f"performance/{own}", f"skew/{own}", f"incidents/{own}", *drifts}
        found[f"predictions/{own}"] = {*judging, f"profiles/predictions/{own}"}
        found[f"labels/{own}"] = {f"performance/{own}", f"profiles/labels/{own}", *drifts}
        decides = {f"decisions/{policy}"} if policy else set()
        found |= {judged: set(decides) for judged in (f"performance/{own}", *drifts)}
        for drift in drifts:
            found[drift].add(drift.replace("drift/", "drift_reports/", 1))
        if policy:
            found[f"decisions/{policy}"] = {f"retrain/{policy}"}
    return {asset: frozenset(after) for asset, after in found.items() if after}
