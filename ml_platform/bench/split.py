"""The fixed split: trained until August, measured on October to December.

The constant, the serving model's trees on static features (no window) and on all, and the project's other models, on
the same rows. The trees find their number of rounds on September, the others on the newest part of their training rows.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime

import click
import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.sources.whole import read_whole
from ml_platform.spec import HAPPENS_AT, KNOWN_AT, ModelSpec, Project
from ml_platform.spec.calendar import day_start
from ml_platform.training.estimators import patient_threads, train
from ml_platform.training.lightgbm_trees import find_rounds, fit_trees
from ml_platform.training.model import Model
from ml_platform.training.training_set import LABEL, QUANTITY, training_rows

STOP_FROM, TEST_FROM = (9, 1), (10, 1)  # month and day of the project's first year


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One model's figures on the test months."""

    name: str
    inputs: int
    measures: Mapping[str, float]


def labelled_rows(project: Project, spec: ModelSpec) -> pl.DataFrame:
    """Every labelled question since the project's features have enough history."""
    frames = read_whole(project)
    views = project.views_of(spec)
    whole = replace(spec, train_window=None)
    spine, outcomes = frames[spec.task.spine], frames[spec.task.label.table]
    now = outcomes[KNOWN_AT].sort().to_list()[-1]
    since = day_start(project.ready_from, project.timezone)
    return training_rows(whole, spine, outcomes, frames, views, now, since=since)


def measure(project: Project, spec: ModelSpec, *, threads: int, others: bool = True) -> list[Arm]:
    """The constant, static features, all features; with ``others`` the project's other models of the same views."""
    rows = labelled_rows(project, spec)
    stop, test = (
        day_start(date(project.starts.year, month, day), project.timezone) for month, day in (STOP_FROM, TEST_FROM)
    )
    tested = rows.filter(pl.col(HAPPENS_AT) >= test)
    learned = rows.filter(pl.col(HAPPENS_AT) < test)
    share = learned.filter(pl.col(HAPPENS_AT) < stop)[LABEL].cast(pl.Float64).to_numpy().mean()
    constant = metrics.measures(tested[LABEL], np.full(tested.height, share))
    arms = [Arm(name="constant", inputs=0, measures=constant)]
    moving = {view.name for view in project.feature_views_of(spec) if view.lookback}
    moving |= {view.name for view in project.request_views_of(spec) if moving.intersection(view.views_read)}
    static = tuple(name for name in spec.views if name not in moving)
    for name, views in (("static features", static), ("all features", spec.views)):
        arms.append(_arm(name, replace(spec, views=views), learned, stop, tested, threads))
    before = learned.filter(pl.col(HAPPENS_AT) < stop)
    for other in project.models.values() if others else ():
        if other.name != spec.name and (other.task, other.views) == (spec.task, spec.views):
            arms.append(_measured(other.name, train(other, before, threads=threads), tested))
    return arms


def _arm(name: str, spec: ModelSpec, learned: pl.DataFrame, stop: datetime, tested: pl.DataFrame, threads: int) -> Arm:
    before = (learned[HAPPENS_AT] < stop).to_numpy()
    fit, watched = np.flatnonzero(before), np.flatnonzero(~before)
    rounds = find_rounds(spec, learned, fit, watched, threads=threads).rounds
    model = fit_trees(spec, learned[fit], rounds, threads=threads)
    return _measured(f"{name} ({rounds} rounds)", model, tested)


def _measured(name: str, model: Model, tested: pl.DataFrame) -> Arm:
    matrix = model.encoding.frame_matrix(tested)
    found = metrics.measures(tested[LABEL], model.predict_matrix(matrix))
    amount = model.predict_quantity(matrix)
    if amount is not None:
        found = {**found, "mae": float(np.abs(tested[QUANTITY].to_numpy() - amount).mean())}
    return Arm(name=name, inputs=len(model.encoding.inputs), measures=found)


def main() -> None:
    """Measure the project's first LightGBM model and print a table."""
    project = load_project(Profile.from_environment().project)
    spec = next(spec for spec in project.models.values() if spec.estimator == "lightgbm")
    patient_threads()
    arms = measure(project, spec, threads=os.cpu_count() or 1)
    click.echo(f"{spec.name}, tested on October to December {project.starts.year}")
    click.echo(f"{'':32}{'inputs':>8}{'AUC':>10}{'log-loss':>10}{'PR-AUC':>10}{'MAE':>8}")
    for arm in arms:
        found = arm.measures
        amount = f"{found['mae']:8.2f}" if "mae" in found else f"{'':8}"
        click.echo(
            f"{arm.name:32}{arm.inputs:8}{found['auc']:10.4f}{found['log_loss']:10.4f}{found['pr_auc']:10.4f}{amount}"
        )


if __name__ == "__main__":
    main()
