"""From the lake to a training set, and from a training set to a registered version; what the assets call."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from ml_platform.features.refresh import read_for_recall
from ml_platform.spec import HAPPENS_AT, MissingHistory, ModelSpec, Project, StateError, View
from ml_platform.spec.calendar import day_start
from ml_platform.spec.manifests import RunManifest, SetManifest, TableVersion
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import GATHERING
from ml_platform.stores.ledger_wants import Answers
from ml_platform.stores.pages import Pages
from ml_platform.stores.tracking import ModelVersion, Tracking
from ml_platform.stores.tracking_entries import ASSET_KEY, RUN_ID
from ml_platform.training.described import about_model, about_version, datasets
from ml_platform.training.feature_record import write_record
from ml_platform.training.manifest import write_manifest
from ml_platform.training.model import Model
from ml_platform.training.training_set import (
    content_hash,
    label_maturity,
    reach,
    split,
    training_rows,
)


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """A training set with its ``part`` column, the holdout's label maturity (0..1) and the tables it was read from."""

    rows: pl.DataFrame
    maturity: float
    tables: Mapping[str, TableVersion]


def table_of(spec: ModelSpec) -> str:
    """Where the model's training set lies in the lake."""
    return f"training_sets/{spec.name}"


def gather(lake: Lake, project: Project, spec: ModelSpec, now: datetime) -> Gathered:
    """Read the model's tables and make its training set as of ``now``.

    Raises:
        MissingHistory: a table was never written.
        TooFewLabels: too few labels are known to train on.
    """
    task, stored = spec.task, project.feature_views_of(spec)
    names = dict.fromkeys([task.spine, task.label.table, *(table for view in stored for table in view.sources)])
    tables = {f"raw/{name}": lake.identity(f"raw/{name}") for name in names}
    lake = lake.as_of({name: found.version for name, found in tables.items()})  # whatever is written meanwhile
    spine, outcomes = (lake.read(f"raw/{name}") for name in (task.spine, task.label.table))
    since = day_start(project.ready_from, project.timezone)
    asked_from = max(since, reach(spec, now) or since) - task.lead - task.grid
    frames = read_for_recall(stored, project, lake, asked_from, now, task.grid)
    rows = training_rows(spec, spine, outcomes, frames, project.views_of(spec), now, since=since)
    parts = split(rows, spec, now)
    return Gathered(rows=parts, maturity=label_maturity(spec, spine, outcomes, now), tables=tables)


def read_set(lake: Lake, spec: ModelSpec) -> pl.DataFrame:
    """The stored training set, in its total order whatever the order on disk.

    Raises:
        MissingHistory: the training set was never made.
    """
    return lake.scan(table_of(spec)).collect().sort(HAPPENS_AT, spec.task.key)


def note_gathering(
    ledger: Ledger, spec: ModelSpec, run_id: str, now: datetime, answers: Answers, manifest: SetManifest
) -> None:
    """Write down what the set that stands is made of, and what it and its model answer."""
    body = {"decision": answers.decision, "heard": answers.heard, "manifest": asdict(manifest)}
    ledger.write(GATHERING, spec.name, run_id, now, body)


def gathered_for(ledger: Ledger, spec: ModelSpec) -> Answers:
    """What the training set that stands answers."""
    newest = ledger.last(GATHERING, spec.name)
    return Answers() if newest is None else Answers.of(newest.body)


def gathered_from(ledger: Ledger, spec: ModelSpec, rows: pl.DataFrame) -> SetManifest:
    """The manifest of the training set that stands.

    Raises:
        StateError: none was written, or it is not that of these rows.
    """
    newest = ledger.last(GATHERING, spec.name)
    if newest is None or "manifest" not in newest.body:
        raise StateError(f"nothing says what {table_of(spec)} was made of; materialize {table_of(spec)} again")
    manifest = SetManifest.from_json(newest.body["manifest"])
    if manifest.content_hash != content_hash(rows):
        raise StateError(
            f"{table_of(spec)} does not hold the rows that were gathered at {manifest.gathered_at} (their digest "
            f"differs); materialize {table_of(spec)} again"
        )
    return manifest


def refuse_empty_features(spec: ModelSpec, rows: pl.DataFrame) -> None:
    """Look whether every feature has a value in some training row, before anything is trained or registered.

    Raises:
        MissingHistory: a feature is null in all of them.
    """
    features = [name for name in rows.columns if name.partition("__")[0] in spec.views and "__" in name]
    empty = [name for name in features if rows[name].null_count() == rows.height]
    if empty:
        views = ", ".join(dict.fromkeys(f"features/{name.partition('__')[0]}" for name in empty))
        raise MissingHistory(
            f"model {spec.name}: {', '.join(empty)} is null in all {rows.height} training rows; look at {views} and "
            f"the tables behind (`ml-platform backfill` makes a view anew), or leave the view out"
        )


def register_model(
    lake: Lake,
    tracking: Tracking,
    model: Model,
    manifest: RunManifest,
    decision: int,
    *,
    spec: ModelSpec,
    columns: pl.Schema,
    run_id: str,
    asset: str,
    views: Sequence[View],
    pages: Pages,
) -> ModelVersion:
    """Store the model as the registry's newest version with everything that says where it came from.

    columns: of the training set. views: what the model was trained on; how they are declared is kept with it.
    """
    table, made_of = table_of(spec), manifest.training_set
    version = lake.version(table)
    tags = {
        **made_of.bounds,
        "training_set": f"{table}@{version}",
        "content_hash": made_of.content_hash,
        "consumed_decision": str(decision),
        "code": manifest.code.commit or manifest.code.sources[:16],
        "code_clean": str(manifest.code.clean),
        "environment": manifest.environment.digest[:16],
        "threads": str(manifest.threads),
        "device": manifest.device,
        "tables": json.dumps({name: found.version for name, found in made_of.tables.items()}),
    }
    with tempfile.TemporaryDirectory() as draft:
        folder = model.save(Path(draft) / "model")
        write_record(folder, views)
        write_manifest(folder, manifest)
        return tracking.register(
            manifest.model,
            folder,
            estimator=manifest.estimator,
            run_name=f"until {tags['trained_until'][:16].replace('T', ' ')}",  # the experiment names the model
            parameters={
                **manifest.parameters,
                "estimator": manifest.estimator,
                "seed": manifest.seed,
                "views": ", ".join(manifest.views),
                "train_window_days": "all" if spec.train_window is None else spec.train_window.days,
                **model.facts,
            },
            metrics=manifest.measures,
            tags=tags,
            curves=model.curves,
            dagster_run_id=run_id,
            asset_key=asset,
            commit=manifest.code.commit or "",
            inputs=model.encoding.inputs,
            datasets=datasets(table, lake.uri(table), version, made_of, columns),
            about=about_version({**tags, RUN_ID: run_id, ASSET_KEY: asset}, pages),
            about_model=about_model(spec, pages),
        )
