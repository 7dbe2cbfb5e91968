"""Upkeep of the lake that leaves every registered model reproducible."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta

from ml_platform.spec import MissingHistory, Project, UnknownName
from ml_platform.stores.delta import Lake
from ml_platform.stores.delta_purge import first_readable
from ml_platform.stores.delta_upkeep import Upkeep, optimize, vacuum
from ml_platform.stores.tracking import ModelVersion, Tracking


def keep_up(
    lake: Lake, tracking: Tracking, project: Project, names: Sequence[str], *, older_than: timedelta, merge: bool
) -> Iterator[Upkeep]:
    """Of these tables (all, if none is named) put small files together if asked, and remove files that are older and
    belong to no version that is needed: neither the newest nor one that a registered model was made of.

    Raises:
        UnknownName: there is no such table. MissingHistory: nothing was written yet.
    """
    known = [table for table in tables_of(project) if lake.exists(table)]
    if not known:
        raise MissingHistory(f"{lake.root} holds no table of {project.name} yet; `ml-platform run` writes them")
    for name in names:
        if name not in known:
            raise UnknownName("table of the lake", name, known)
    pins = pinned(tracking)
    for table in names or known:
        first = first_readable(lake, table)  # what a forgetting took cannot be kept
        kept = tuple(sorted(number for number in pins.get(table, ()) if number >= first))
        merged = optimize(lake, table) if merge else 0
        removed = vacuum(lake, table, older_than, kept)
        yield Upkeep(table=table, merged=merged, removed=removed, kept_versions=kept)


def tables_of(project: Project) -> list[str]:
    """Every table that the project's assets write, whether it was written yet or not."""
    judged = ("performance", "performance_slices", "skew", "incidents", "incident_versions")
    of_service = ("predictions", "labels", *judged, "batch_predictions")
    return [
        *(f"{kind}/{name}" for kind in ("raw", "quarantine", "refused") for name in project.tables),
        *(f"features/{name}" for name in project.views),
        *(f"training_sets/{name}" for name in project.models),
        *(f"{kind}/{name}" for kind in of_service for name in project.services),
        *(f"profiles/raw/{name}" for name in project.tables),
        *(f"profiles/{kind}/{name}" for kind in ("predictions", "labels") for name in project.services),
        *(f"drift/{name}" for name in project.drift_policies),
        f"reviews/{project.name}",
    ]


def pinned(tracking: Tracking) -> dict[str, set[int]]:
    """Table -> the versions of it that registered models were made of: what must stay readable."""
    pins: dict[str, set[int]] = {}
    for name in tracking.names():
        for found in tracking.versions(name):
            for table, number in _made_of(found).items():
                pins.setdefault(table, set()).add(number)
    return pins


def _made_of(found: ModelVersion) -> dict[str, int]:
    """The tables by version; none where the model was registered before there were manifests."""
    return {str(name): int(number) for name, number in json.loads(found.tags.get("tables", "{}")).items()}
