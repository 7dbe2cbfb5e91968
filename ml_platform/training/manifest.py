"""What a version is made of, written down: its training set, code, environment, threads, device and files."""

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.spec import HAPPENS_AT, ModelRefused, ModelSpec, Project
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.spec.manifests import CodeVersion, Environment, RunManifest, SetManifest, TableVersion
from ml_platform.training.model import Model
from ml_platform.training.training_set import HOLDOUT, PART, TRAIN, content_hash

MANIFEST_FILE = "manifest.json"


def declared(project: Project, spec: ModelSpec) -> str:
    """Fingerprint of the model, its task and views; another is a reason to train again."""
    return fingerprint(spec, project.views_of(spec))


def bounds(rows: pl.DataFrame) -> dict[str, str]:
    """What the rows say about time (ISO): first and last event trained on, first and last event held out."""
    moments = rows.select(
        trained_from=pl.col(HAPPENS_AT).filter(pl.col(PART) == TRAIN).min(),
        trained_until=pl.col(HAPPENS_AT).filter(pl.col(PART) == TRAIN).max(),
        holdout_from=pl.col(HAPPENS_AT).filter(pl.col(PART) == HOLDOUT).min(),
        holdout_until=pl.col(HAPPENS_AT).filter(pl.col(PART) == HOLDOUT).max(),
    ).row(0, named=True)
    return {name: moment.isoformat() for name, moment in moments.items()}


def set_manifest(
    project: Project,
    spec: ModelSpec,
    rows: pl.DataFrame,
    tables: Mapping[str, TableVersion],
    maturity: float,
    now: datetime,
) -> SetManifest:
    """What the training set was made of, and what came out. maturity: of the holdout's labels (0..1)."""
    return SetManifest(
        gathered_at=now.isoformat(),
        tables=dict(tables),
        declared=declared(project, spec),
        rows=dict(rows[PART].value_counts().sort(PART).iter_rows()),
        content_hash=content_hash(rows),
        label_maturity=maturity,
        bounds=bounds(rows),
    )


def run_manifest(
    spec: ModelSpec, made_of: SetManifest, model: Model, threads: int, packages: Sequence[str]
) -> RunManifest:
    """All that a version was made of. packages: the importable ones that hold its declarations."""
    return RunManifest(
        model=spec.name,
        estimator=spec.estimator,
        parameters=_plain(spec.parameters),
        seed=spec.seed,
        train_window=None if spec.train_window is None else spec.train_window.total_seconds(),
        holdout=spec.gate.holdout.total_seconds(),
        min_rows=spec.min_rows,
        views=spec.views,
        training_set=made_of,
        threads=threads,
        device=str(model.facts.get("device", "cpu")),
        code=code_version(packages),
        environment=environment(),
        files=model.digests(),
        compute=spec.compute,
        workers={} if spec.compute == "local" else {"count": spec.workers.count, "threads": spec.workers.threads},
        measures={key: value for key, value in model.facts.items() if isinstance(value, float)},
    )


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """As they come back from JSON."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in parameters.items()}


def code_version(packages: Sequence[str]) -> CodeVersion:
    """The code as it lies on disk now: the platform's and that of these packages."""
    digest, roots = sha256(), [_folder(name) for name in dict.fromkeys(["ml_platform", *packages])]
    for root in roots:
        for file in sorted(root.rglob("*.py")):
            digest.update(f"{root.name}/{file.relative_to(root)}".encode() + b"\0" + file.read_bytes() + b"\0")
    commit = _git(roots[-1], "rev-parse", "HEAD")
    status = _git(roots[-1], "status", "--porcelain", "--untracked-files=no") if commit else None
    return CodeVersion(sources=digest.hexdigest(), commit=commit, clean=None if status is None else not status)


def _folder(package: str) -> Path:
    found = find_spec(package)
    assert found is not None, package  # the project was loaded from it
    assert found.submodule_search_locations, package
    return Path(next(iter(found.submodule_search_locations)))


def _git(folder: Path, *command: str) -> str | None:
    """What git says of the folder; None where it is in no repository or there is no git."""
    try:
        said = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def environment() -> Environment:
    """The interpreter, the machine's kind and every installed package."""
    # A distribution whose folder is half-removed has no name; it is nobody's import.
    packages = {found.name.lower(): found.version for found in distributions() if found.name}
    return Environment.of(sys.version.split()[0], f"{platform.system()} {platform.machine()}", packages)


def write_manifest(folder: Path, manifest: RunManifest) -> None:
    """Put it beside the model."""
    (folder / MANIFEST_FILE).write_text(manifest.to_json())


def read_manifest(folder: Path) -> RunManifest:
    """What was put there.

    Raises:
        ModelRefused: there is none (the version was registered before there were manifests), or it was changed.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise ModelRefused(f"{folder} holds no {MANIFEST_FILE}: the version was registered without one; train it again")
    return RunManifest.from_json(path.read_text())
