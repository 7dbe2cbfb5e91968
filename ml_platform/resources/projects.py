"""Finds a project's declarations: one file one thing, the file's name is the thing's name."""

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from types import ModuleType
from typing import TypeVar, get_args

from ml_platform.resources.request_views import check_request_view, check_use
from ml_platform.spec import (
    Active,
    DeclarationError,
    DriftPolicy,
    FeatureView,
    Latest,
    ModelSpec,
    Project,
    RequestView,
    RetrainPolicy,
    RolloutPolicy,
    Service,
    SourceTable,
    Task,
    UnknownName,
)
from ml_platform.spec.compute import refuse_compute
from ml_platform.spec.lineage import roots
from ml_platform.spec.models import Approval
from ml_platform.spec.request_views import request_fields
from ml_platform.spec.rollouts import PROBABILITY, TRUTH

Declared = TypeVar(
    "Declared", SourceTable, FeatureView, RequestView, ModelSpec, RetrainPolicy, DriftPolicy, RolloutPolicy, Service
)
# Kinds that share a folder: a file of one is none of the other.
_BESIDE: Mapping[type, tuple[type, ...]] = {
    RetrainPolicy: (DriftPolicy, RolloutPolicy),
    DriftPolicy: (RetrainPolicy, RolloutPolicy),
    RolloutPolicy: (RetrainPolicy, DriftPolicy),
    FeatureView: (RequestView,),
    RequestView: (FeatureView,),
}


@lru_cache
def load_project(package: str) -> Project:
    """The project declared by an importable package, with everything found in its folders.

    Raises:
        DeclarationError: the package is missing, holds no ``project``, or a declaration is wrong or clashes.
        UnknownName: a declaration names something that does not exist.
    """
    root = _import(package, "the setting ML_PLATFORM_PROJECT names it")
    project = getattr(root, "project", None)
    if not isinstance(project, Project):
        raise DeclarationError(f"{package} holds no `project = Project(...)`; add one to {root.__file__}")
    feature_root = _import(project.features, f"{package} names it as its Feast repository")
    found = replace(
        project,
        tables=_declared(SourceTable, root, "tables"),
        views=_declared(FeatureView, feature_root, "views"),
        request_views=_declared(RequestView, feature_root, "views"),
        models=_declared(ModelSpec, root, "models"),
        retrain_policies=_declared(RetrainPolicy, root, "policies"),
        drift_policies=_declared(DriftPolicy, root, "policies"),
        rollout_policies=_declared(RolloutPolicy, root, "policies"),
        services=_declared(Service, root, "services"),
    )
    _check_references(found)
    keyed = {name: replace(view, key=found.tables[view.source].key) for name, view in found.views.items()}
    return replace(found, views=keyed)


def _import(package: str, why: str) -> ModuleType:
    if not all(part.isidentifier() for part in package.split(".")):
        raise DeclarationError(f"{package!r} is no importable name; {why}: correct it")
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise DeclarationError(f"cannot import {package!r} ({error}); {why}: install it or correct the name") from error


def _declared(kind: type[Declared], root: ModuleType, folder: str) -> dict[str, Declared]:
    """Every declaration of this kind in the folder, by file name."""
    package = f"{root.__name__}.{folder}"
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            return {}
        raise
    things: dict[str, Declared] = {}
    seen: dict[int, str] = {}
    for module_name in sorted(m.name for m in pkgutil.iter_modules(found.__path__) if not m.name.startswith("_")):
        module = importlib.import_module(f"{package}.{module_name}")
        own = {key: value for key, value in vars(module).items() if isinstance(value, kind) and not key.startswith("_")}
        beside = [
            thing for other in _BESIDE.get(kind, ()) for thing in vars(module).values() if isinstance(thing, other)
        ]
        if not own and not beside:
            names = " or ".join(each.__name__ for each in (kind, *_BESIDE.get(kind, ())))
            raise DeclarationError(f"{module.__file__} declares no {names}; add one or remove the file")
        if not own:
            continue
        if list(own) != [module_name]:
            raise DeclarationError(
                f"{module.__file__} must declare one {kind.__name__} named {module_name!r} like its file, "
                f"but declares {', '.join(sorted(own))}; rename one or the other"
            )
        declaration = own[module_name]
        if id(declaration) in seen:
            raise DeclarationError(f"{module.__file__} declares the same thing as {seen[id(declaration)]}; keep one")
        seen[id(declaration)] = str(module.__file__)
        things[module_name] = replace(declaration, name=declaration.name or module_name)
    _refuse_clashes(kind, things, package)
    return things


def _refuse_clashes(kind: type, things: Mapping[str, Declared], package: str) -> None:
    for file, thing in things.items():
        if thing.name != file:
            raise DeclarationError(
                f"{package}.{file} declares a {kind.__name__} with name={thing.name!r}, which clashes with its file "
                f"name; drop name=, the file's name is used"
            )


def _check_references(project: Project) -> None:
    for view in project.views.values():
        _known("source table", view.sources, project.tables)
        _check_columns(view, project)
    for request_view in project.request_views.values():
        check_request_view(request_view, project)
    _check_types(project)
    for spec in project.models.values():
        _known("source table", [spec.task.spine, spec.task.label.table], project.tables)
        _known("feature view", spec.views, project.all_views)
        _check_task(spec.task, project)
        if spec.policy:
            _known("retraining policy", [spec.policy], project.retrain_policies)
        _known(f"kind of approval (gate of model {spec.name})", [spec.gate.approval], get_args(Approval))
        refuse_compute(spec.name, spec.estimator, spec.compute, spec.workers)
        for name in spec.views:
            missing = set(project.all_views[name].entity_names) - set(spec.task.entities)
            if missing:
                raise DeclarationError(
                    f"model {spec.name} uses view {name}, whose entity {', '.join(sorted(missing))} is not among the "
                    f"task's entities {spec.task.entities}; add it to the task {spec.task.name!r}"
                )
        for request_view in project.request_views_of(spec):
            check_use(request_view, spec, project)
    for service in project.services.values():
        _known("model", [service.model], project.models)
        if not 0 < service.skew_share <= 1:
            raise DeclarationError(
                f"service {service.name} declares skew_share={service.skew_share}; it is a share above 0, at most 1"
            )
        if service.most_waiting < 1 or service.answer_within <= timedelta(0):
            raise DeclarationError(
                f"service {service.name} declares most_waiting={service.most_waiting} and "
                f"answer_within={service.answer_within}; with these it could never answer: both are above 0"
            )
    for policy in project.drift_policies.values():
        _check_drift(policy, project)
    for retrain in project.retrain_policies.values():
        problems = retrain.problems()
        if problems:
            raise DeclarationError(f"retraining policy {retrain.name}: {'; '.join(problems)}")
        _known(f"drift policy (retraining policy {retrain.name})", retrain.triggers, project.drift_policies)
    _check_who_retrains(project)
    for rollout in project.rollout_policies.values():
        _check_rollout(rollout, project)


def _check_drift(policy: DriftPolicy, project: Project) -> None:
    """Whoever watches nothing, or could never judge, must not look like a watch."""
    problems = policy.problems()
    if problems:
        raise DeclarationError(f"drift policy {policy.name}: {'; '.join(problems)}")
    if policy.table:
        table = project.tables.get(policy.table)
        _known(f"source table (drift policy {policy.name})", [policy.table], project.tables)
        _known(f"column of {policy.table} (drift policy {policy.name})", policy.columns, table.columns if table else ())
    else:
        _known("service", [policy.service], project.services)


def _check_rollout(policy: RolloutPolicy, project: Project) -> None:
    """Whoever guards nothing, or counts by what no request names, must not ship anything."""
    _known(f"service (rollout policy {policy.name})", [policy.service], project.services)
    others = [other.name for other in project.rollout_policies.values() if other.service == policy.service]
    if others != [policy.name]:
        raise DeclarationError(
            f"service {policy.service} has the rollout policies {', '.join(others)}; keep one of them"
        )
    problems = policy.problems()
    if problems:
        raise DeclarationError(f"rollout policy {policy.name}: {'; '.join(problems)}")
    task = project.models[project.services[policy.service].model].task
    for names in (policy.assign_by, policy.evidence_by):
        _known(f"entity of task {task.name} (rollout policy {policy.name})", names, task.entities)
    for name, metric in policy.metrics.items():
        columns = sorted(metric.value.meta.root_names())
        _known(f"column of a metric (value of {name}, rollout policy {policy.name})", columns, (PROBABILITY, TRUTH))


def _check_types(project: Project) -> None:
    """What a request brings under one name is of one type, whichever view asks for it."""
    declared: dict[str, tuple[str, str, str]] = {}
    for view in project.all_views.values():
        columns: list[tuple[str, str, str]] = [(entity.name, "entity", entity.dtype) for entity in view.entities]
        columns += [(name, "request column", kind) for name, kind in request_fields([view]).items()]
        for name, what, dtype in columns:
            first, before, other = declared.setdefault(name, (view.name, what, dtype))
            if before != what:
                raise DeclarationError(f"view {first} declares {name} as {before}, {view.name} as {what}; choose one")
            if dtype != other:
                raise DeclarationError(
                    f"views {first} and {view.name} declare the {what} {name} as {other} and as {dtype}; "
                    f"declare it once and use it in both"
                )


def _check_who_retrains(project: Project) -> None:
    served = {service.model for service in project.services.values()}
    used: dict[str, str] = {}
    for spec in project.models.values():
        if spec.policy and used.setdefault(spec.policy, spec.name) != spec.name:
            raise DeclarationError(
                f"models {used[spec.policy]} and {spec.name} share the retraining policy {spec.policy!r}; "
                f"write one policy file a model"
            )
        if spec.policy and spec.name not in served:
            raise DeclarationError(
                f"model {spec.name} has the retraining policy {spec.policy!r}, but no service answers with it, so it "
                f"has no late labels to be judged by; add a service or leave its policy out"
            )


def _check_columns(view: FeatureView, project: Project) -> None:
    """Whatever the view names must stand in its tables; a feature's name must be its own."""
    raw = project.tables[view.source].columns
    columns = {*raw, *view.derive}
    for name, expression in view.derive.items():
        _known(f"column of {view.source} (derives {name} of view {view.name})", sorted(roots(expression, raw)), raw)
    if view.where is not None:
        _known(f"column of {view.source} (where of view {view.name})", sorted(roots(view.where, raw)), columns)
    _known(f"column of {view.source} (entity of view {view.name})", view.entity_names, columns)
    _known(f"column of {view.source} (time of view {view.name})", [view.time], columns)
    if not view.is_live and any(not isinstance(feature, Latest) for feature in view.features):
        raise DeclarationError(
            f"view {view.name} declares Latest beside windows; the one is stored, the other computed when it is asked: "
            f"give Latest a view of its own"
        )
    names = [name for feature in view.features for name, _, _ in feature.features()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeclarationError(f"view {view.name} declares {', '.join(twice)} twice; give one of them another name=")
    for feature in view.features:
        if isinstance(feature, Active):
            _known(f"column of {view.source} (in view {view.name})", [feature.opened_at, *feature.key], columns)
            for table in feature.closed_by:
                _known(
                    f"column of {table} (closes {feature.name} of view {view.name})",
                    feature.key,
                    project.tables[table].columns,
                )
        else:
            _known(f"column of {view.source} (in view {view.name})", [feature.column], columns)


def _check_task(task: Task, project: Project) -> None:
    """Whatever the task names must stand in its spine and in its label's table."""
    spine, truths = project.tables[task.spine].columns, project.tables[task.label.table].columns
    for name, expression in task.derive.items():
        _known(f"column of {task.spine} (derives {name} of task {task.name})", sorted(roots(expression, spine)), spine)
    names = [task.key, *task.entities, *task.label.on, task.happens_at]
    _known(f"column of {task.spine} (in task {task.name})", names, {*spine, *task.derive})
    used = [*task.label.on, *sorted(roots(task.label.value, truths))]
    _known(f"column of {task.label.table} (label of task {task.name})", used, truths)


def _known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownName(kind, name, known)
