"""From the registry and the training set to a judged challenger; what the asset calls."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.evaluation.comparison import compare, score
from ml_platform.evaluation.report import Report, report
from ml_platform.spec import ModelRefused, ModelSpec, NoChampion, Verdict
from ml_platform.stores.delta import Lake
from ml_platform.stores.tracking import ModelVersion, Tracking
from ml_platform.training.estimators import load
from ml_platform.training.model import Model
from ml_platform.training.steps import read_part
from ml_platform.training.training_set import HOLDOUT


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The newest version, the champion it was held against (None: none yet), and what was found."""

    version: ModelVersion
    champion: ModelVersion | None
    verdict: Verdict
    report: Report

    def body(self) -> dict[str, Any]:
        """What the ledger keeps of it."""
        return {
            "state": self.verdict.state,
            "reason": self.verdict.reason,
            "version": self.version.version,
            "champion": self.champion.version if self.champion else None,
            "measures": {**self.verdict.measures, **self.report.measures},
        }


def evaluate(lake: Lake, tracking: Tracking, spec: ModelSpec, timezone: str, scratch: Path) -> Evaluated:
    """Judge the newest version on the holdout of the training set.

    Raises:
        UnknownName: no version was ever registered. MissingHistory: there is no training set.
        ModelRefused: the newest version's own files are damaged.
    """
    version = tracking.versions(spec.name)[-1]
    champion = _champion(tracking, spec.name)
    holdout = read_part(lake, spec, HOLDOUT)
    challenger = _load(tracking, version, scratch)
    rows, verdict = _judged(tracking, spec, timezone, holdout, challenger, version, champion, scratch)
    facts = {
        "version": version.version,
        "champion": champion.version if champion else "none yet",
        "holdout rows": rows.height,
        **version.tags,
        **challenger.facts,
    }
    title = f"{spec.name} version {version.version}"
    made = report(title, rows, challenger.importances, verdict, facts)
    return Evaluated(version=version, champion=champion, verdict=verdict, report=made)


def _judged(
    tracking: Tracking,
    spec: ModelSpec,
    timezone: str,
    holdout: pl.DataFrame,
    challenger: Model,
    version: ModelVersion,
    champion: ModelVersion | None,
    scratch: Path,
) -> tuple[pl.DataFrame, Verdict]:
    alone = score(holdout, challenger, None, timezone)
    if champion is None:
        return compare(alone, None, spec, first=True)
    if champion.version == version.version:
        return alone, Verdict.unknown(f"version {version.version} is the champion already; there is no challenger")
    try:
        scored = score(holdout, challenger, _load(tracking, champion, scratch), timezone)
    except ModelRefused as error:
        # Without the champion's answers nothing can be compared; a person decides.
        reason = f"champion version {champion.version} cannot answer these rows ({error}); approve one with --override"
        return alone, Verdict.unknown(reason)
    return compare(scored, datetime.fromisoformat(champion.tags["trained_until"]), spec, first=False)


def _champion(tracking: Tracking, name: str) -> ModelVersion | None:
    try:
        return tracking.champion(name)
    except NoChampion:
        return None


def _load(tracking: Tracking, version: ModelVersion, scratch: Path) -> Model:
    return load(tracking.download(version, scratch / f"{version.name}-v{version.version}"))
