"""From the registry and the training set to a judged challenger; what the asset calls."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.evaluation.baselines import baselines
from ml_platform.evaluation.comparison import fresh, score, without_champion
from ml_platform.evaluation.cost import latency_ms
from ml_platform.evaluation.figures import measure
from ml_platform.evaluation.gate import Evidence, Judged, judge
from ml_platform.evaluation.report import Report, report
from ml_platform.features.skew import newest_look
from ml_platform.spec import ModelRefused, ModelSpec, NoChampion, Project
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import GATHERING
from ml_platform.stores.tracking import ModelVersion, Tracking
from ml_platform.training.estimators import load
from ml_platform.training.model import Model
from ml_platform.training.steps import read_set
from ml_platform.training.training_set import HOLDOUT, PART, TRAIN


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The newest version, the champion it was held against (None: none yet), and what was found."""

    version: ModelVersion
    champion: ModelVersion | None
    judged: Judged
    report: Report

    def body(self) -> dict[str, Any]:
        """What the ledger keeps of it."""
        criteria = {
            name: {"state": verdict.state, "reason": verdict.reason} for name, verdict in self.judged.criteria.items()
        }
        return {
            "state": self.judged.verdict.state,
            "reason": self.judged.verdict.reason,
            "version": self.version.version,
            "champion": self.champion.version if self.champion else None,
            "criteria": criteria,
            "measures": {**self.judged.verdict.measures, **self.report.measures},
        }


def evaluate(
    lake: Lake, tracking: Tracking, ledger: Ledger, project: Project, spec: ModelSpec, scratch: Path
) -> Evaluated:
    """Judge the newest version on the holdout of the training set.

    Raises:
        UnknownName: no version was ever registered. MissingHistory: there is no training set.
        ModelRefused: the newest version's own files are damaged.
    """
    version, champion = tracking.versions(spec.name)[-1], champion_of(tracking, spec.name)
    challenger, parts = load_version(tracking, version, scratch), read_set(lake, spec)
    holdout, answers = parts.filter(pl.col(PART) == HOLDOUT), baselines(spec, parts.filter(pl.col(PART) == TRAIN))
    rival, stands = _rival(tracking, version, champion, holdout, scratch)
    scored = score(holdout, challenger, rival, project.timezone, answers)
    # Where nothing is compared, the champion has no rows that it must not have seen.
    until = trained_until(champion) if champion and rival else None
    evidence = Evidence(
        scored=fresh(scored, until),
        rows=fresh(holdout, until),
        encoding=challenger.encoding,
        weights=challenger.weights(),
        latency_ms=latency_ms(challenger, holdout),
        timezone=project.timezone,
        maturity=maturity_of(ledger, spec),
        skew=skew_of(ledger, project, spec),
        first=champion is None,
        stands=stands,
    )
    judged = judge(evidence, spec)
    # Too few rows that the champion has not seen: all are shown, without it.
    shown, rows = (evidence.scored, evidence.rows) if judged.slices is not None else (without_champion(scored), holdout)
    facts = {
        "version": version.version,
        "champion": champion.version if champion else "none yet",
        "rows_judged": shown.height,
        **version.tags,
        **{"rows_trained" if name == "rows" else name: fact for name, fact in challenger.facts.items()},
    }
    figures = measure(spec, shown, rows, judged, project.timezone)
    made = report(spec, version.version, shown, figures, challenger.importances, judged, facts)
    return Evaluated(version=version, champion=champion, judged=judged, report=made)


def _rival(
    tracking: Tracking, version: ModelVersion, champion: ModelVersion | None, holdout: pl.DataFrame, scratch: Path
) -> tuple[Model | None, str | None]:
    """The champion's model, or why it cannot be compared with; neither where there is no champion."""
    if champion is None:
        return None, None
    if champion.version == version.version:
        return None, f"version {version.version} is the champion already; there is no challenger"
    try:
        found = load_version(tracking, champion, scratch)
        found.encoding.refuse_missing(holdout)
    except ModelRefused as error:
        # Without the champion's answers nothing can be compared; a person decides.
        return (
            None,
            f"champion version {champion.version} cannot answer these rows ({error}); approve one with --override",
        )
    return found, None


def champion_of(tracking: Tracking, name: str) -> ModelVersion | None:
    """The champion's version, if there is one."""
    try:
        return tracking.champion(name)
    except NoChampion:
        return None


def trained_until(version: ModelVersion) -> datetime:
    """The newest moment of an event that it was trained on."""
    return datetime.fromisoformat(version.tags["trained_until"])


def load_version(tracking: Tracking, version: ModelVersion, scratch: Path) -> Model:
    """Its model.

    Raises:
        ModelRefused: its files are gone or damaged.
    """
    return load(tracking.download(version, scratch / f"{version.name}-v{version.version}"))


def maturity_of(ledger: Ledger, spec: ModelSpec) -> float | None:
    """Share (0..1) of the holdout's labels that had arrived when the training set was gathered; None: not noted."""
    newest = ledger.last(GATHERING, spec.name)
    return None if newest is None or "manifest" not in newest.body else newest.body["manifest"]["label_maturity"]


def skew_of(ledger: Ledger, project: Project, spec: ModelSpec) -> dict[str, str | None]:
    """Service that answers with this model -> what its newest look found to differ; none that was never looked at."""
    served = [service.name for service in project.services.values() if service.model == spec.name]
    looks = {name: newest_look(ledger, name) for name in served}
    return {
        name: str(look.body["reason"]) if int(look.body["differing"]) else None
        for name, look in looks.items()
        if look is not None
    }
