"""What people look at: the challenger's figures, plots and one page, beside the champion's."""

import html
import io
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.spec import TooFewLabels, Verdict

DAY, LABEL, CHALLENGER, CHAMPION = "day", "label", "challenger", "champion"
_COLOURS = {CHALLENGER: "#1f6feb", CHAMPION: "#8b949e"}


@dataclass(frozen=True, kw_only=True)
class Report:
    """measures: name -> value, the champion's with prefix ``champion_``; plots: title -> PNG; page: HTML."""

    measures: Mapping[str, float]
    plots: Mapping[str, bytes]
    page: str


def measure(scored: pl.DataFrame) -> dict[str, float]:
    """Every measure of the challenger, and the champion's where it was scored, too.

    scored: columns ``day``, ``label`` (0 or 1), ``challenger`` and ``champion`` (probabilities; all null without one).

    Raises:
        TooFewLabels: no rows, or one class only.
    """
    found = metrics.measures(scored[LABEL], scored[CHALLENGER])
    if has_champion(scored):
        champion = metrics.measures(scored[LABEL], scored[CHAMPION])
        found |= {f"champion_{name}": value for name, value in champion.items()}
    return found


def has_champion(scored: pl.DataFrame) -> bool:
    """Whether the rows were scored by a champion."""
    return scored[CHAMPION].null_count() == 0


def losses_by_day(scored: pl.DataFrame) -> pl.DataFrame:
    """``day``, ``rows`` and the mean log-loss of each model on it, by day."""
    columns = [pl.Series(CHALLENGER, metrics.row_losses(scored[LABEL], scored[CHALLENGER]))]
    if has_champion(scored):
        columns.append(pl.Series(CHAMPION, metrics.row_losses(scored[LABEL], scored[CHAMPION])))
    losses = scored.select(DAY).with_columns(columns)
    means = [pl.col(column.name).mean() for column in columns]
    return losses.group_by(DAY).agg(pl.len().alias("rows"), *means).sort(DAY)


def report(
    title: str, scored: pl.DataFrame, importances: Mapping[str, float], verdict: Verdict, facts: Mapping[str, Any]
) -> Report:
    """Measures, plots and page of one challenger on the holdout.

    facts: what else to print (versions, times, rows). Where the labels are too few to measure anything, the page says
    so, and there are no measures and no curves.
    """
    plots = {"Importance of inputs": _importance(importances)}
    try:
        measures = measure(scored)
    except TooFewLabels as error:
        measures = {}
        facts = {**facts, "not measured": str(error)}
    else:
        curves = {"ROC and precision-recall": _curves(scored), "Calibration": _calibration(scored)}
        plots = {**curves, "Log-loss by day": _by_day(scored), **plots}
    return Report(measures=measures, plots=plots, page=_page(title, measures, plots, verdict, facts))


def _models(scored: pl.DataFrame) -> list[str]:
    return [CHALLENGER, CHAMPION] if has_champion(scored) else [CHALLENGER]


def _figure(width: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not through pyplot: it keeps figures in a global list and picks a backend.
    figure = Figure(figsize=(width, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _curves(scored: pl.DataFrame) -> bytes:
    figure, (left, right) = _figure(9, 2)
    for model in _models(scored):
        style = {"color": _COLOURS[model], "drawstyle": "steps-post"}
        left.plot(*metrics.roc(scored[LABEL], scored[model]), label=model, color=_COLOURS[model])
        right.plot(*metrics.precision_recall(scored[LABEL], scored[model]), label=model, **style)
    left.plot([0, 1], [0, 1], ":", color="#8b949e")
    left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    right.set(title="Precision-recall", xlabel="recall", ylabel="precision", ylim=(0, 1))
    left.legend()
    return _png(figure)


def _calibration(scored: pl.DataFrame) -> bytes:
    figure, axes = _figure(5)
    for model in _models(scored):
        predicted, observed, _ = metrics.calibration_curve(scored[LABEL], scored[model])
        axes.plot(predicted, observed, "o-", label=model, color=_COLOURS[model])
    axes.plot([0, 1], [0, 1], ":", color="#8b949e")
    axes.set(title="Calibration (ten equal bins)", xlabel="mean probability", ylabel="share of ones")
    axes.legend()
    return _png(figure)


def _by_day(scored: pl.DataFrame) -> bytes:
    figure, axes = _figure(7)
    losses = losses_by_day(scored)
    days = [str(day) for day in losses[DAY]]
    for model in _models(scored):
        axes.plot(days, losses[model], "o-", label=model, color=_COLOURS[model])
    axes.set(title="Log-loss by day", ylabel="log-loss")
    axes.tick_params(axis="x", rotation=45)
    axes.legend()
    return _png(figure)


def _importance(importances: Mapping[str, float]) -> bytes:
    figure, axes = _figure(7)
    top = sorted(importances.items(), key=lambda item: item[1])[-20:]
    axes.barh([name for name, _ in top], [share for _, share in top], color=_COLOURS[CHALLENGER])
    axes.set(title="Importance (share), the first 20")
    axes.tick_params(axis="y", labelsize=7)
    return _png(figure)


def _page(
    title: str,
    measures: Mapping[str, float],
    plots: Mapping[str, bytes],
    verdict: Verdict,
    facts: Mapping[str, Any],
) -> str:
    names = [name for name in measures if not name.startswith("champion_")]
    lines = [
        f"<tr><td>{name}</td><td>{measures[name]:.4f}</td><td>{_number(measures.get(f'champion_{name}'))}</td></tr>"
        for name in names
    ]
    told = [
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(_shown(value))}</td></tr>" for key, value in facts.items()
    ]
    images = [
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{b64encode(png).decode()}">'
        for name, png in plots.items()
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328 }}
table {{ border-collapse: collapse; margin: 1rem 0 }} td, th {{ border: 1px solid #d1d9e0; padding: .2rem .6rem }}
img {{ max-width: 100% }} .verdict {{ padding: .6rem 1rem; border-left: .4rem solid #8b949e; background: #f6f8fa }}
.pass {{ border-color: #1a7f37 }} .fail {{ border-color: #cf222e }} .unknown {{ border-color: #9a6700 }}
</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="verdict {verdict.state}"><b>{verdict.state}</b>: {html.escape(verdict.reason)}</p>
<table><tr><th>on the holdout</th><th>challenger</th><th>champion</th></tr>{"".join(lines)}</table>
<table>{"".join(told)}</table>
{"".join(images)}
</body></html>
"""


def _shown(fact: Any) -> str:
    return f"{fact:.4f}" if isinstance(fact, float) else str(fact)


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.4f}"
