"""What people look at: plots, one page and a model card of the challenger beside champion and baselines."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ml_platform.evaluation import plots
from ml_platform.evaluation.baselines import CONSTANT
from ml_platform.evaluation.card import card
from ml_platform.evaluation.figures import Figures, losses_by_day, models
from ml_platform.evaluation.gate import Judged
from ml_platform.evaluation.page import page
from ml_platform.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Report:
    """measures: name -> value; plots: title -> PNG; page: HTML; card: Markdown."""

    measures: Mapping[str, float]
    plots: Mapping[str, bytes]
    page: str
    card: str

    def files(self, page_name: str) -> dict[str, bytes]:
        """All of it as files, by path; page_name: how the page's is called."""
        drawn = {f"plots/{_file_name(title)}.png": png for title, png in self.plots.items()}
        return {page_name: self.page.encode(), "model_card.md": self.card.encode(), **drawn}


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def report(
    spec: ModelSpec,
    version: int,
    scored: pl.DataFrame,
    figures: Figures,
    importances: Mapping[str, float],
    judged: Judged,
    facts: Mapping[str, Any],
) -> Report:
    """Plots, page and card of one challenger.

    facts: what else to print (versions, times, rows). Where nothing could be measured, the page says so, and there are
    no curves.
    """
    drawn = {}
    if figures.unmeasured is None:
        # A constant has no curve to speak of.
        lines = [name for name in models(scored) if name != CONSTANT]
        drawn["ROC, precision-recall, lift"] = plots.curves(scored, lines)
        drawn["Calibration"] = plots.calibration(scored, lines)
        drawn["Log-loss by day"] = plots.by_day(losses_by_day(scored), models(scored))
        if figures.gains and figures.slices is not None and not figures.slices.is_empty():
            drawn["Gain by group"] = plots.slices(figures.slices)
    drawn["Importance of inputs"] = plots.importance(importances)
    title = f"{spec.name} version {version}"
    return Report(
        measures=figures.measures(),
        plots=drawn,
        page=page(title, figures, drawn, judged, facts),
        card=card(spec, title, figures, importances, judged, facts),
    )
