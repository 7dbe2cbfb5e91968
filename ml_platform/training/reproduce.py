"""Make a registered version again from its manifest, from the raw tables on, and compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from ml_platform.metrics import log_loss
from ml_platform.spec import ModelRefused, ModelSpec, PlatformError, Project, UnknownName
from ml_platform.spec.manifests import RunManifest
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgettings import AT, ROWS
from ml_platform.stores.tracking import Tracking
from ml_platform.training.estimators import load, train
from ml_platform.training.feature_record import changes, read_record
from ml_platform.training.manifest import code_version, declared, environment, read_manifest
from ml_platform.training.model import Model, stored_digests
from ml_platform.training.steps import Gathered, gather
from ml_platform.training.training_set import HOLDOUT, LABEL, PART, TRAIN, content_hash
from ml_platform.training.workers import Site, refuse_site

State = Literal["bit-identical", "metric-identical", "different", "cannot"]
# Log-loss on the holdout; far below what the gate can tell apart, far above what another order of summing makes.
WITHIN = 1e-4
_NEEDED: Mapping[str, tuple[str, ...]] = {"lightgbm": ("lightgbm",), "torch": ("torch",)}
_DECIDING = ("polars", "numpy", "deltalake")  # versions that decide bits beside the estimator's own


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """What came of it, in a sentence; ``notes``: what differs between then and now."""

    state: State
    reason: str
    notes: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether the version was made again."""
        return self.state in ("bit-identical", "metric-identical")

    def sentence(self) -> str:
        """For people."""
        return f"cannot, because {self.reason}" if self.state == "cannot" else f"{self.state}: {self.reason}"


def reproduce(
    lake: Lake, tracking: Tracking, project: Project, package: str, name: str, number: int, scratch: Path, site: Site
) -> Reproduced:
    """Gather the training set as of the manifest's table versions, train with its parameters, compare.

    package: the project's importable package. scratch: a folder for what has to be downloaded.
    site: where the workers of a version that was trained by some are started.

    Raises:
        UnknownName: there is no such model or version.
    """
    found = tracking.version(name, number)
    if ROWS in found.tags:
        since = found.tags.get(AT, "")
        return _cannot(f"an entity was forgotten: {found.tags[ROWS]} of the rows it was made of are gone since {since}")
    try:
        folder = tracking.download(found, scratch / "registered")
        manifest, registered = read_manifest(folder), load(folder)
        if stored_digests(folder) != manifest.files:
            raise ModelRefused(f"the files of {name} version {number} are not those that were registered; restore them")
        missing = _missing_packages(manifest)
        if missing:
            return _cannot(f"{', '.join(missing)} is not installed here; install what the manifest names")
        notes = _notes(manifest, project, package)
        spec = _spec_then(project, manifest)
        refuse_site(spec, site)
        changed = changes(record, project.views_of(spec)) if (record := read_record(folder)) else {}
        if changed:
            told = ", ".join(f"{feature} {what}" for feature, what in changed.items())
            return _cannot(f"{told}; {_code_then(manifest)}", notes)
        gathered = _gather_then(lake, project, spec, manifest)
    except UnknownName:
        raise
    except PlatformError as error:
        return _cannot(str(error))
    digest = content_hash(gathered.rows)
    if digest != manifest.training_set.content_hash:
        then = dict(manifest.training_set.rows)
        now = dict(gathered.rows[PART].value_counts().sort(PART).iter_rows())
        reason = f"its training set comes out otherwise: rows {now} instead of {then}, digest {digest[:12]}"
        return Reproduced(state="different", reason=f"{reason}; {_code_then(manifest)}", notes=notes)
    again = train(spec, gathered.rows.filter(pl.col(PART) == TRAIN), threads=manifest.threads, site=site)
    return _compared(registered, again, manifest, gathered.rows.filter(pl.col(PART) == HOLDOUT), notes)


def _cannot(reason: str, notes: Sequence[str] = ()) -> Reproduced:
    return Reproduced(state="cannot", reason=reason, notes=tuple(notes))


def _missing_packages(manifest: RunManifest) -> list[str]:
    wanted = (*_NEEDED.get(manifest.estimator, ()), *_DECIDING)
    return [f"{name} {manifest.environment.packages.get(name, '')}".strip() for name in wanted if not _installed(name)]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _notes(manifest: RunManifest, project: Project, package: str) -> tuple[str, ...]:
    """What is otherwise now: each may be the reason why bits differ."""
    notes = []
    code = code_version([package, project.features])
    if code.sources != manifest.code.sources:
        notes.append(f"the code is not the same: {_code_then(manifest)}")
    if manifest.code.clean is False:
        notes.append("the tree held changes that were not committed when it was trained")
    here = environment()
    if here.python != manifest.environment.python or here.platform != manifest.environment.platform:
        then = f"{manifest.environment.python} on {manifest.environment.platform}"
        notes.append(f"Python {then} then, {here.python} on {here.platform} now")
    for name in sorted({*_NEEDED.get(manifest.estimator, ()), *_DECIDING}):
        before, now = manifest.environment.packages.get(name), here.packages.get(name)
        if before != now:
            notes.append(f"{name} {before} then, {now} now")
    spec = project.models.get(manifest.model)
    if spec and declared(project, spec) != manifest.training_set.declared:
        notes.append("the model or a view is declared otherwise now; what the manifest says is used where it can be")
    return tuple(notes)


def _code_then(manifest: RunManifest) -> str:
    commit = manifest.code.commit
    return (
        f"it was trained at commit {commit}" if commit else f"its sources had the digest {manifest.code.sources[:12]}"
    )


def _spec_then(project: Project, manifest: RunManifest) -> ModelSpec:
    """Today's declaration with what the manifest says instead of what may have changed.

    Raises:
        ModelRefused: the model or a view is not declared any more.
    """
    if manifest.model not in project.models:
        raise ModelRefused(f"model {manifest.model} is not declared any more; {_code_then(manifest)}")
    gone = [view for view in manifest.views if view not in project.all_views]
    if gone:
        raise ModelRefused(f"the views {', '.join(gone)} are not declared any more; {_code_then(manifest)}")
    spec = project.models[manifest.model]
    window = manifest.train_window
    return replace(
        spec,
        estimator=manifest.estimator,  # type: ignore[arg-type]  # one of the estimators, or `train` refuses it
        parameters=manifest.parameters,
        seed=manifest.seed,
        views=manifest.views,
        min_rows=manifest.min_rows,
        train_window=None if window is None else timedelta(seconds=window),
        compute=manifest.compute,  # type: ignore[arg-type]  # likewise
        workers=replace(spec.workers, **manifest.workers),
        gate=replace(spec.gate, holdout=timedelta(seconds=manifest.holdout)),
    )


def _gather_then(lake: Lake, project: Project, spec: ModelSpec, manifest: RunManifest) -> Gathered:
    """The training set, from the tables as of their versions.

    Raises:
        MissingHistory: a version cannot be read any more.
        ModelRefused: a table of that name and version is another one.
    """
    made_of = manifest.training_set
    then = lake.as_of({name: table.version for name, table in made_of.tables.items()})
    for name, table in made_of.tables.items():
        if then.identity(name).files != table.files:
            raise ModelRefused(
                f"version {table.version} of {name} is made of other files than the ones it was trained on: the table "
                f"was deleted and made anew"
            )
    return gather(then, project, spec, datetime.fromisoformat(made_of.gathered_at))


def _compared(
    registered: Model, again: Model, manifest: RunManifest, holdout: pl.DataFrame, notes: tuple[str, ...]
) -> Reproduced:
    rows = sum(manifest.training_set.rows.values())
    by = f"{manifest.threads} threads"
    if manifest.workers:
        by = f"{manifest.workers['count']} workers of {manifest.workers['threads']} threads ({manifest.compute})"
    made = f"{rows} rows of the same digest, {by}, {again.facts.get('device', 'cpu')}"
    if again.digests() == manifest.files:
        return Reproduced(state="bit-identical", reason=made, notes=notes)
    labels = holdout[LABEL].to_numpy()
    then, now = registered.predict(holdout), again.predict(holdout)
    measures: dict[str, Any] = {
        "log_loss_then": log_loss(labels, then),
        "log_loss_now": log_loss(labels, now),
        "largest_difference": float(np.abs(then - now).max()),
    }
    apart = abs(measures["log_loss_then"] - measures["log_loss_now"])
    told = (
        f"log-loss on the holdout {measures['log_loss_then']:.6f} then and {measures['log_loss_now']:.6f} now, "
        f"probabilities at most {measures['largest_difference']:.2g} apart; {made}"
    )
    if apart <= WITHIN:
        state: State = "metric-identical"
        return Reproduced(state=state, reason=f"within {max(apart, 1e-12):.1g}: {told}", notes=notes, measures=measures)
    return Reproduced(state="different", reason=told, notes=notes, measures=measures)
