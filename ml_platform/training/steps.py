"""From the lake to a training set, and from a training set to a registered version; what the assets call."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from ml_platform.features.refresh import read_for_recall
from ml_platform.spec import FeatureView, ModelSpec, Project
from ml_platform.spec.calendar import day_start
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.tracking import Dataset, ModelVersion, Tracking
from ml_platform.training.feature_record import write_record
from ml_platform.training.model import Model
from ml_platform.training.training_set import (
    HAPPENS_AT,
    HOLDOUT,
    PART,
    TRAIN,
    content_hash,
    label_maturity,
    reach,
    split,
    training_rows,
)

GATHERING = "gathering"  # the ledger's kind of line


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """A training set with its ``part`` column, the holdout's label maturity (0..1) and the tables it was read from."""

    rows: pl.DataFrame
    maturity: float
    table_versions: Mapping[str, int]


def table_of(spec: ModelSpec) -> str:
    """Where the model's training set lies in the lake."""
    return f"training_sets/{spec.name}"


def gather(lake: Lake, project: Project, spec: ModelSpec, now: datetime) -> Gathered:
    """Read the model's tables and make its training set as of ``now``.

    Raises:
        MissingHistory: a table was never written.
        TooFewLabels: too few labels are known to train on.
    """
    task, views = spec.task, [project.views[name] for name in spec.views]
    names = dict.fromkeys([task.spine, task.label.table, *(table for view in views for table in view.sources)])
    versions = {f"raw/{name}": lake.version(f"raw/{name}") for name in names}
    spine, outcomes = (lake.scan(f"raw/{name}").collect() for name in (task.spine, task.label.table))
    since = day_start(project.ready_from, project.timezone)
    asked_from = max(since, reach(spec, now) or since) - task.lead - task.grid
    frames = read_for_recall(views, project, lake, asked_from, now, task.grid)
    rows = training_rows(spec, spine, outcomes, frames, views, now, since=since)
    parts = split(rows, spec, now)
    return Gathered(rows=parts, maturity=label_maturity(spec, spine, outcomes, now), table_versions=versions)


def read_part(lake: Lake, spec: ModelSpec, part: str) -> pl.DataFrame:
    """One part of the stored training set, in its total order whatever the order on disk.

    Raises:
        MissingHistory: the training set was never made.
    """
    return lake.scan(table_of(spec)).filter(pl.col(PART) == part).collect().sort(HAPPENS_AT, spec.task.key)


def bounds(rows: pl.DataFrame) -> dict[str, str]:
    """What the rows say about time (ISO): last event trained on, first and last event held out."""
    moments = rows.select(
        trained_from=pl.col(HAPPENS_AT).filter(pl.col(PART) == TRAIN).min(),
        trained_until=pl.col(HAPPENS_AT).filter(pl.col(PART) == TRAIN).max(),
        holdout_from=pl.col(HAPPENS_AT).filter(pl.col(PART) == HOLDOUT).min(),
        holdout_until=pl.col(HAPPENS_AT).filter(pl.col(PART) == HOLDOUT).max(),
    ).row(0, named=True)
    return {name: moment.isoformat() for name, moment in moments.items()}


def answered(newest: Entry | None) -> int:
    """Up to which wanted retraining a set that is gathered now answers, by the newest decision; 0 is none."""
    return 0 if newest is None else int(newest.body["wanted"])


def note_gathering(ledger: Ledger, spec: ModelSpec, run_id: str, now: datetime, decision: int) -> None:
    """Write down which wanted retraining the set that stands now answers; the model trained on it answers no other."""
    ledger.write(GATHERING, spec.name, run_id, now, {"decision": decision})


def gathered_for(ledger: Ledger, spec: ModelSpec) -> int:
    """Up to which wanted retraining the training set that stands answers; 0 is none."""
    newest = ledger.last(GATHERING, spec.name)
    return 0 if newest is None else int(newest.body["decision"])


def register_model(
    lake: Lake,
    tracking: Tracking,
    spec: ModelSpec,
    model: Model,
    decision: int,
    *,
    run_id: str,
    asset: str,
    views: Sequence[FeatureView],
) -> ModelVersion:
    """Store the model as the registry's newest version with everything that says where it came from.

    views: what the model was trained on; how they are declared is kept with it.
    """
    table = table_of(spec)
    rows = lake.scan(table).collect().sort(HAPPENS_AT, spec.task.key)
    digest = content_hash(rows)
    tags = {
        **bounds(rows),
        "training_set": f"{table}@{lake.version(table)}",
        "content_hash": digest,
        "consumed_decision": str(decision),
    }
    measures = {key: value for key, value in model.facts.items() if isinstance(value, float)}
    with tempfile.TemporaryDirectory() as draft:
        folder = model.save(Path(draft) / "model")
        write_record(folder, views)
        return tracking.register(
            spec.name,
            folder,
            estimator=spec.estimator,
            run_name=f"{spec.name} until {tags['trained_until']}",
            parameters={**spec.parameters, "estimator": spec.estimator, "seed": spec.seed, **model.facts},
            metrics=measures,
            tags=tags,
            dagster_run_id=run_id,
            asset_key=asset,
            dataset=Dataset(name=table, digest=digest, source=lake.uri(table)),
        )
