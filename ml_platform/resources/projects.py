"""Finds a project's declarations: one file one thing, the file's name is the thing's name."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import TypeVar

from ml_platform.spec import (
    DeclarationError,
    DriftPolicy,
    FeatureView,
    ModelSpec,
    Project,
    RetrainPolicy,
    Service,
    SourceTable,
    UnknownName,
)

Declared = TypeVar("Declared", SourceTable, FeatureView, ModelSpec, RetrainPolicy, DriftPolicy, Service)


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
        models=_declared(ModelSpec, root, "models"),
        retrain_policies=_declared(RetrainPolicy, root, "policies"),
        drift_policies=_declared(DriftPolicy, root, "policies"),
        services=_declared(Service, root, "services"),
    )
    _check_references(found)
    return found


def _import(package: str, why: str) -> ModuleType:
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
    for module_name in sorted(m.name for m in pkgutil.iter_modules(found.__path__)):
        module = importlib.import_module(f"{package}.{module_name}")
        own = {key: value for key, value in vars(module).items() if isinstance(value, kind) and not key.startswith("_")}
        if not own and folder != "policies":
            raise DeclarationError(f"{module.__file__} declares no {kind.__name__}; add one or remove the file")
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
        _check_entities(view, project)
    for spec in project.models.values():
        _known("source table", [spec.task.spine, spec.task.label.table], project.tables)
        _known("feature view", spec.views, project.views)
        if spec.policy:
            _known("retraining policy", [spec.policy], project.retrain_policies)
        for name in spec.views:
            missing = set(project.views[name].entity_names) - set(spec.task.entities)
            if missing:
                raise DeclarationError(
                    f"model {spec.name} uses view {name}, whose entity {', '.join(sorted(missing))} is not among the "
                    f"task's entities {spec.task.entities}; add it to the task {spec.task.name!r}"
                )
    for service in project.services.values():
        _known("model", [service.model], project.models)
    for policy in project.drift_policies.values():
        _known("service", [policy.service], project.services)
    used: dict[str, str] = {}
    for spec in project.models.values():
        if spec.policy and used.setdefault(spec.policy, spec.name) != spec.name:
            raise DeclarationError(
                f"models {used[spec.policy]} and {spec.name} share the retraining policy {spec.policy!r}; "
                f"write one policy file a model"
            )


def _check_entities(view: FeatureView, project: Project) -> None:
    columns = {*project.tables[view.source].columns, *view.derive}
    missing = [name for name in view.entity_names if name not in columns]
    if missing:
        raise UnknownName(f"column of {view.source} (entity of view {view.name})", missing[0], columns)


def _known(kind: str, names: Iterable[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise UnknownName(kind, name, known)
