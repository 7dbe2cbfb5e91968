"""Plots of one challenger beside the champion and the baselines, each as a PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.evaluation.comparison import CHALLENGER, CHAMPION, DAY
from ml_platform.training.training_set import LABEL

_STYLES: Mapping[str, Mapping[str, Any]] = {
    CHALLENGER: {"color": "#1f6feb", "linewidth": 1.8, "zorder": 4},
    CHAMPION: {"color": "#57606a", "linewidth": 1.4, "zorder": 3},
    "logistic": {"color": "#bf8700", "linewidth": 1.2, "linestyle": "--", "zorder": 2},
    "constant": {"color": "#8b949e", "linewidth": 1.0, "linestyle": ":", "zorder": 1},
}
_GREY, _GOOD, _BAD, _OPEN = "#8b949e", "#1a7f37", "#cf222e", "#57606a"
_MOST_POINTS = 400  # of a curve: more cannot be seen, and drawing them takes its time
_MOST_GROUPS = 30
_SETTLED = 0.01


def curves(scored: pl.DataFrame, models: Sequence[str]) -> bytes:
    """ROC, precision-recall and lift."""
    figure, (roc, recall, lift) = _figure(12, 4, 3)
    for model in models:
        style = {**_STYLES[model], "label": model}
        roc.plot(*_thin(metrics.roc(scored[LABEL], scored[model])), **style)
        known = _thin(settled(metrics.precision_recall(scored[LABEL], scored[model])))
        recall.plot(*known, drawstyle="steps-post", **style)
        lift.plot(*_thin(settled(metrics.lift(scored[LABEL], scored[model]))), **style)
    roc.plot([0, 1], [0, 1], ":", color=_GREY)
    recall.axhline(scored[LABEL].cast(pl.Float64).mean(), linestyle=":", color=_GREY)
    lift.axhline(1, linestyle=":", color=_GREY)
    roc.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    recall.set(title="Precision-recall", xlabel="recall", ylabel="precision", ylim=(0, 1))
    lift.set(title="Lift", xlabel="share of rows, the surest first", ylabel="times as many ones as on average")
    roc.legend(frameon=False)
    return _png(figure)


def calibration(scored: pl.DataFrame, models: Sequence[str], bins: int = 10) -> bytes:
    """Share of ones against mean probability in bins of equal size, and how the probabilities lie."""
    figure, (line, bars) = _figure(9.5, 4, 2)
    for model in models:
        predicted, observed, _ = metrics.calibration_curve(scored[LABEL], scored[model], bins)
        error = metrics.calibration_error(scored[LABEL], scored[model], bins)
        line.plot(predicted, observed, marker="o", markersize=4, label=f"{model}, error {error:.3f}", **_STYLES[model])
    line.plot([0, 1], [0, 1], ":", color=_GREY)
    line.set(title=f"Calibration ({bins} equal bins)", xlabel="mean probability", ylabel="share of ones")
    line.legend(frameon=False)
    given, ones = scored[CHALLENGER].to_numpy(), scored[LABEL].cast(pl.Boolean).to_numpy()
    edges = np.linspace(0, 1, 31)
    everyone, surely = np.histogram(given, edges)[0], np.histogram(given[ones], edges)[0]
    bars.stairs(everyone, edges, baseline=surely, fill=True, color="#b6d4fe", label="zeros")
    bars.stairs(surely, edges, fill=True, color="#1f6feb", label="ones")
    bars.set(title="The challenger's probabilities", xlabel="probability", ylabel="rows")
    bars.legend(frameon=False)
    return _png(figure)


def by_day(losses: pl.DataFrame, models: Sequence[str]) -> bytes:
    """Mean log-loss by day. losses: as ``losses_by_day`` makes it."""
    figure, axes = _figure(9.5, 3.4)
    days = [f"{day:%d %b}" for day in losses[DAY]]
    for model in models:
        axes.plot(days, losses[model], marker="o", markersize=4, label=model, **_STYLES[model])
    axes.set(title="Log-loss by day", ylabel="log-loss")
    axes.set_xticks(range(0, len(days), -(-len(days) // 14)))
    axes.legend(frameon=False)
    return _png(figure)


def slices(table: pl.DataFrame) -> bytes:
    """Gain of each group over the champion, its interval and its margin; those judged and the largest of the others."""
    largest = table.with_row_index("place").sort("judged", "rows", descending=True).head(_MOST_GROUPS).sort("place")
    figure, axes = _figure(9.5, max(2.5, 1.2 + 0.2 * largest.height), left=2.2)
    places = np.arange(largest.height)[::-1]
    gains, lows, highs, margins = (largest[n].to_numpy() for n in ("gain", "gain_low", "gain_high", "margin"))
    judged = largest["judged"].to_numpy()
    lost, won = judged & (highs < -margins), judged & (lows > 0)
    for mine, colour in ((lost, _BAD), (won, _GOOD), (judged & ~lost & ~won, _OPEN), (~judged, "#d0d7de")):
        axes.hlines(places[mine], lows[mine], highs[mine], color=colour, linewidth=2)
        axes.scatter(gains[mine], places[mine], color=colour, s=16, zorder=3)
    axes.vlines(-margins, places - 0.4, places + 0.4, color=_BAD, linewidth=1, alpha=0.5)
    axes.axvline(0, color=_GREY, linewidth=1)
    names = [f"{row['slice']} {row['group']} ({row['rows']:,})" for row in largest.iter_rows(named=True)]
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylim(-1, largest.height)
    # A tiny group's interval would squeeze all others.
    seen = np.concatenate([lows[judged], highs[judged], [-0.03, 0.03]])
    axes.set_xlim(seen.min() * 1.15, seen.max() * 1.15)
    axes.set(title="Gain over the champion by group (rows); red: its margin; pale: too few rows", xlabel="log-loss won")
    return _png(figure)


def ablation(table: pl.DataFrame) -> bytes:
    """Log-loss lost without each group of inputs, with its interval, what matters most at the top."""
    shown = table.slice(1).head(_MOST_GROUPS)
    figure, axes = _figure(9.5, max(2.0, 1.2 + 0.22 * shown.height), left=2.8)
    places = np.arange(shown.height)[::-1]
    needed, harmful = (shown["lost_low"] > 0).to_numpy(), (shown["lost_high"] < 0).to_numpy()
    for mine, colour in ((needed, _GOOD), (harmful, _BAD), (~needed & ~harmful, _OPEN)):
        chosen = shown.filter(mine)
        axes.hlines(places[mine], chosen["lost_low"], chosen["lost_high"], color=colour, linewidth=2)
        axes.scatter(chosen["lost"], places[mine], color=colour, s=18, zorder=3)
    axes.axvline(0, color=_GREY, linewidth=1)
    axes.set_yticks(places, [f"{row['without']} ({row['inputs']})" for row in shown.iter_rows(named=True)])
    axes.tick_params(axis="y", labelsize=7)
    axes.set(title="Lost without it (inputs); green: surely needed, red: surely better without", xlabel="log-loss lost")
    return _png(figure)


def contest(table: pl.DataFrame) -> bytes:
    """Each candidate's gain over the champion with its interval, the best at the top; green: it passes the gate."""
    known = table.drop_nulls("gain")
    figure, axes = _figure(9.5, max(1.8, 1.2 + 0.35 * known.height), left=2.6)
    places = np.arange(known.height)[::-1]
    passed = known["state"].is_in(["pass", "warn"]).to_numpy()
    for mine, colour in ((passed, _GOOD), (~passed, _OPEN)):
        chosen = known.filter(mine)
        axes.hlines(places[mine], chosen["gain_low"], chosen["gain_high"], color=colour, linewidth=3)
        axes.scatter(chosen["gain"], places[mine], color=colour, s=30, zorder=3)
    axes.axvline(0, color=_GREY, linewidth=1)
    axes.set_yticks(places, known["candidate"].to_list())
    axes.set_ylim(-0.6, known.height - 0.4)
    axes.set(title="Gain over the champion on the same rows; green: passes the gate", xlabel="log-loss won")
    return _png(figure)


def importance(importances: Mapping[str, float]) -> bytes:
    """The fifteen inputs that the model uses most, by its own measure."""
    figure, axes = _figure(9.5, 3.4, left=3.2)
    top = sorted(importances.items(), key=lambda item: item[1])[-15:]
    names, shares = [name for name, _ in top], [share for _, share in top]
    axes.hlines(names, 0, shares, color=_STYLES[CHALLENGER]["color"], linewidth=8)
    axes.set_xlim(left=0)
    axes.set(title="Importance of inputs (share), the first 15")
    axes.tick_params(axis="y", labelsize=7)
    return _png(figure)


def settled(curve: tuple[Any, Any]) -> tuple[Any, Any]:
    """Without its first hundredth, where single rows decide: one wrong surest row would draw a line down to zero."""
    kept = curve[0] >= _SETTLED
    return curve[0][kept], curve[1][kept]


def _thin(curve: tuple[Any, Any]) -> tuple[Any, Any]:
    kept = np.unique(np.linspace(0, len(curve[0]) - 1, _MOST_POINTS).astype(int))
    return curve[0][kept], curve[1][kept]


def _figure(width: float, height: float, columns: int = 1, left: float = 0.6) -> tuple[Any, Any]:
    """left: inches for labels. Margins are given: finding them would draw everything twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not through pyplot: it keeps figures in a global list and picks a backend.
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    sides = {"left": left / width, "right": 1 - 0.15 / width, "bottom": 0.55 / height, "top": 1 - 0.35 / height}
    figure.subplots_adjust(**sides, wspace=0.22)
    for each in np.atleast_1d(axes):
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    for each in figure.axes:
        each.set_title(each.get_title(), y=1.0)  # else its place is looked for, at the cost of a quarter of the drawing
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
