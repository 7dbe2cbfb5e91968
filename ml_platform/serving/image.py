"""From an approved version to the context of an image that serves exactly it: files, manifest, pins and the code."""

import importlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ml_platform.resources.profiles import Profile
from ml_platform.serving.aliases import rejected
from ml_platform.serving.image_pins import ESTIMATORS, SERVING, imported_by, locked, pins
from ml_platform.serving.image_texts import texts
from ml_platform.serving.shipped import MODEL, Shipped
from ml_platform.spec import LedgerBroken, ModelRefused, Project, StateError, UnknownName, WordRefused
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import ADOPTION, APPROVAL, PROMOTION
from ml_platform.stores.model_files import as_registered, digests
from ml_platform.stores.tracking import Tracking
from ml_platform.training.model import read_schema

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which version of which service; without a number its champion. override: also one that nobody let pass."""

    service: str
    version: int | None = None
    override: bool = False


def service_of(project: Project, name: str) -> str:
    """The service of that name, or the one that answers with the model of that name.

    Raises:
        UnknownName: there is neither; or several services answer with it.
    """
    if name in project.services:
        return name
    answering = sorted(each.name for each in project.services.values() if each.model == name)
    if len(answering) == 1:
        return answering[0]
    if answering:
        raise WordRefused(f"{', '.join(answering)} answer with model {name}; name one of them")
    raise UnknownName("service or served model", name, [*project.services, *project.models])


def allowed(ledger: Ledger, model: str, version: str, *, override: bool) -> Mapping[str, Any]:
    """The ledger's line by which the version may serve.

    Raises:
        LedgerBroken: the ledger was tampered with, and nobody said to go on all the same.
        WordRefused: no line lets it, or one forbids it, likewise.
    """
    whole = ledger.verify()
    if whole.state == "fail" and not override:
        raise LedgerBroken(f"{whole.reason}. With --override the image is made all the same")
    end = rejected(ledger, model, version)
    said = [line for line in ledger.about(model, (APPROVAL, PROMOTION, ADOPTION)) if _about(line, version)]
    if end and not override:
        raise WordRefused(f"version {version} of {model} was rejected by {end.body['by']} (line {end.number})")
    if said and not end:
        return {"line": said[-1].number, "kind": said[-1].kind, "at": said[-1].at.isoformat()}
    if override:
        return {"line": None, "kind": "override"}
    raise WordRefused(
        f"version {version} of {model} was never approved or promoted, says the ledger; `ml-platform approve {model} "
        f"{version} --by NAME --reason WHY`, or --override, which the manifest then says"
    )


def _about(line: Entry, version: str) -> bool:
    return str(line.body["version"]) == version


def make_image(profile: Profile, project: Project, wanted: Wanted, target: Path, lock: Path, now: datetime) -> Shipped:
    """Write the context of an image into a folder that is not there yet: all of it or nothing.

    lock: the platform's requirements.lock.

    Raises:
        UnknownName, NoChampion: there is no such service or version.
        WordRefused, LedgerBroken: it may not serve.
        ModelRefused: its files are not those that were registered.
        StateError: the folder holds something.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StateError(f"{target} holds something; give --to a folder that is empty or not there yet")
    model = project.services[wanted.service].model
    tracking, ledger = Tracking(profile.mlflow_uri, profile.mlflow_artifacts), Ledger(profile.ledger_path)
    found = tracking.version(model, wanted.version) if wanted.version else tracking.champion(model)
    number = str(found.version)
    by = allowed(ledger, model, number, override=wanted.override)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as draft:
        folder, files = Path(draft) / "context", Path(draft) / "files"
        here = as_registered(tracking.download(found, Path(draft) / "downloaded"), ledger, model, number, files)
        shutil.copytree(here, folder / MODEL)
        shipped = Shipped(
            service=wanted.service,
            model=model,
            version=number,
            project=profile.project,
            made=now,
            digests=digests(folder / MODEL),
            allowed=by,
            folder=folder,
        )
        packages = [profile.project, project.features]
        _copy_code(packages, folder)
        roots = [*SERVING, *_estimators(folder / MODEL), *imported_by(packages)]
        for name, text in texts(shipped, pins(locked(lock), roots), locked(lock)["pip"]).items():
            (folder / name).write_text(text)
        shipped.write()
        if target.exists():
            target.rmdir()
        folder.rename(target)
    return Shipped.read(target)


def _copy_code(packages: Sequence[str], folder: Path) -> None:
    """Ours and the project's whole top packages, as they are imported here."""
    for top in sorted({name.partition(".")[0] for name in ("ml_platform", *packages)}):
        file = importlib.import_module(top).__file__
        if file is None:
            raise StateError(f"package {top} has no file of its own, so it cannot be copied; give it an __init__.py")
        shutil.copytree(Path(file).parent, folder / top, ignore=_LEFT_OUT)


def _estimators(folder: Path) -> set[str]:
    """The distributions that load the model, and its members where it is a blend."""
    schemas = [folder, *sorted(folder.glob("member-*"))]
    names = [str(read_schema(each)["estimator"]) for each in schemas]
    unknown = sorted(set(names) - ESTIMATORS.keys())
    if unknown:
        raise ModelRefused(f"nobody knows what loads estimator {unknown[0]}; known: {', '.join(ESTIMATORS)}")
    return {dist for name in names for dist in ESTIMATORS[name]}
