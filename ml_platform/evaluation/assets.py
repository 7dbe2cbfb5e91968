"""Stage 5 as assets: every newest version against the champion on the same fresh rows."""

import os
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from ml_platform import asset_keys
from ml_platform.automation.conditions import after_upstream
from ml_platform.evaluation.ablation import ablate, by_feature, by_view
from ml_platform.evaluation.contest import check_contests, enter, hold_contest
from ml_platform.evaluation.cost import OnlineReads
from ml_platform.evaluation.gate import check_gate
from ml_platform.evaluation.plots import ablation as ablation_plot
from ml_platform.evaluation.plots import contest as contest_plot
from ml_platform.evaluation.steps import Evaluated, evaluate
from ml_platform.resources import metadata
from ml_platform.resources.profiles import Profile
from ml_platform.spec import ModelSpec, Project
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import GATE
from ml_platform.stores.online import Online
from ml_platform.stores.tiles import TileStore
from ml_platform.stores.tracking import Tracking
from ml_platform.training.described import about_version
from ml_platform.training.steps import read_set
from ml_platform.training.workers import Site

GROUP = "evaluation"
CHECK, WINNER = "beats_champion", "somebody_wins"

_Events = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]
# Which questions a service would read now, and how; the stage behind this one knows.
Asking = Callable[[Project, ModelSpec, Lake, Online, TileStore, datetime], OnlineReads]


def evaluation_assets(project: Project, asking: Asking | None = None) -> list[dg.AssetsDefinition]:
    """``evaluations/<model>`` of every declared model, ``contests/<model>`` of those that others challenge, and
    ``ablations/<model>`` of those that challenge nobody.

    asking: how a service reads online; without it no ablation says what that costs.

    Raises:
        DeclarationError: a gate cannot judge anything, a slice names a column that is not there, or a challenger
            could not take the place that it competes for.
    """
    for spec in project.models.values():
        check_gate(spec, project)
    check_contests(project)
    held = [spec for spec in project.models.values() if project.challengers_of(spec)]
    return [
        *(_evaluation(project, spec) for spec in project.models.values()),
        *(_contest(project, spec) for spec in held),
        *(_ablation(project, spec, asking) for spec in project.models.values() if spec.challenges is None),
    ]


def _evaluation(project: Project, spec: ModelSpec) -> dg.AssetsDefinition:
    key = asset_keys.evaluation(spec.name)

    @dg.asset(
        key=key,
        description=f"The newest version of {spec.name} and the champion on the same fresh rows: measures, plots and "
        f"the gate's verdict, which the deployment follows.",
        deps=[asset_keys.model(spec.name), asset_keys.training_set(spec.name)],
        automation_condition=after_upstream(asset_keys.model(spec.name)),
        check_specs=[dg.AssetCheckSpec(CHECK, asset=key, description="The gate lets the challenger pass.")],
        kinds=asset_keys.kinds(key, "mlflow", "polars"),
        owners=[spec.owner],
        group_name=GROUP,
    )
    def evaluation(
        lake: dg.ResourceParam[Lake],
        tracking: dg.ResourceParam[Tracking],
        ledger: dg.ResourceParam[Ledger],
        clock: dg.ResourceParam[Clock],
        profile: dg.ResourceParam[Profile],
    ) -> _Events:
        with tempfile.TemporaryDirectory() as scratch:
            found = evaluate(lake, tracking, ledger, project, spec, Path(scratch))
        page = _write(profile.reports_path, found)
        about = about_version(found.version.tags, profile.pages, found.judged.verdict)
        tracking.record(found.version, _named(found), found.report.files(page.name), about)
        ledger.write(GATE, spec.name, f"v{found.version.version}", clock.now(), found.body())
        version = dg.DataVersion(f"{found.version.version}-{found.judged.verdict.state}")
        links = metadata.mlflow_links(tracking, found.version, profile.pages)
        told = {**_told(found), "report": dg.MetadataValue.path(page), **links}
        yield dg.MaterializeResult(metadata=told, data_version=version)
        yield metadata.check(found.judged.verdict, name=CHECK)

    return evaluation


def _contest(project: Project, holder: ModelSpec) -> dg.AssetsDefinition:
    key = asset_keys.contest(holder.name)
    models = [holder.name, *(spec.name for spec in project.challengers_of(holder))]

    @dg.asset(
        key=key,
        description=f"The newest versions of {', '.join(models)} on the same fresh rows against the champion of "
        f"{holder.name}, when somebody asks for it. The best that the gate lets pass becomes a version of "
        f"{holder.name}, which its service then deploys.",
        deps=[asset_keys.training_set(holder.name), *(asset_keys.model(name) for name in models)],
        check_specs=[dg.AssetCheckSpec(WINNER, asset=key, description="The gate lets a challenger pass.")],
        kinds=asset_keys.kinds(key, "mlflow", "polars"),
        owners=[holder.owner],
        group_name=GROUP,
    )
    def contest(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        tracking: dg.ResourceParam[Tracking],
        ledger: dg.ResourceParam[Ledger],
        clock: dg.ResourceParam[Clock],
        profile: dg.ResourceParam[Profile],
    ) -> _Events:
        with tempfile.TemporaryDirectory() as scratch:
            held = hold_contest(lake, tracking, ledger, project, holder, Path(scratch))
            entered = enter(
                tracking, ledger, held, holder, clock.now(), Path(scratch), run_id=context.run_id, pages=profile.pages
            )
        drawn = metadata.image(b64encode(contest_plot(held.table())).decode(), "Gain over the champion")
        shown: dict[str, Any] = {
            "candidates": metadata.rows(held.table(), most=20),
            "gains": drawn,
            "entered_as": entered or "nothing",
        }
        if entered is not None:
            shown["mlflow_version"] = dg.MetadataValue.url(profile.pages.mlflow_version(holder.name, entered))
        yield dg.MaterializeResult(metadata={**metadata.verdict(held.verdict), **shown})
        yield metadata.check(held.verdict, name=WINNER)

    return contest


class By(dg.Config):
    """``view``: what is lost without each view. ``feature``: without each single input, which takes far longer."""

    by: Literal["view", "feature"] = "view"


def _ablation(project: Project, spec: ModelSpec, asking: Asking | None) -> dg.AssetsDefinition:
    key = asset_keys.ablation(spec.name)

    @dg.asset(
        key=key,
        description=f"What {spec.name} loses without each view (or feature), and what that costs: in training, in "
        f"answering and in reading online. It is trained anew without each, when somebody asks for it. It changes "
        f"nothing.",
        deps=[asset_keys.training_set(spec.name)],
        kinds=asset_keys.kinds(key, "polars"),
        owners=[spec.owner],
        group_name=GROUP,
    )
    def ablation(
        config: By,
        lake: dg.ResourceParam[Lake],
        online: dg.ResourceParam[Online],
        tiles: dg.ResourceParam[TileStore],
        clock: dg.ResourceParam[Clock],
        profile: dg.ResourceParam[Profile],
    ) -> dg.MaterializeResult[Any]:
        parts, threads = read_set(lake, spec), os.cpu_count() or 1
        groups = by_view(spec, parts) if config.by == "view" else by_feature(spec, parts)
        site = Site(ray_address=profile.ray_address)
        reads = asking(project, spec, lake, online, tiles, clock.now()) if asking else None
        found = ablate(spec, parts, groups, project.timezone, threads=threads, site=site, online=reads)
        drawn = metadata.image(b64encode(ablation_plot(found)).decode(), "Lost without it")
        told: dict[str, Any] = {"without": metadata.rows(found, most=100), "lost": drawn}
        if reads is not None:
            timed = found["read_us"][0] is not None
            told["read_us is of"] = reads.told if timed else f"nothing: the online store holds nothing of {reads.told}"
        return dg.MaterializeResult(metadata=told)

    return ablation


def _write(folder: Path, found: Evaluated) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{found.version.name}-v{found.version.version}.html"
    page.write_text(found.report.page)
    return page


def _named(found: Evaluated) -> Mapping[str, float]:
    return {f"holdout_{name}": value for name, value in found.report.measures.items()}


def _told(found: Evaluated) -> dict[str, Any]:
    plots = {title: metadata.image(b64encode(png).decode(), title) for title, png in found.report.plots.items()}
    champion = found.champion.version if found.champion else "none yet"
    versions = {"version": found.version.version, "champion": champion}
    asked = {f"gate: {name}": f"{each.state}: {each.reason}" for name, each in found.judged.criteria.items()}
    told = {**metadata.verdict(found.judged.verdict), **asked, **metadata.figures(found.report.measures)}
    return {**told, **versions, **plots, "model_card": dg.MetadataValue.md(found.report.card)}
