"""Plots of a study: how the loss fell, which parameters decided, and what each was worth where; each as a PNG.

Not Optuna's own: those draw through pyplot's global figures, and their lines through all parameters at once cannot be
read on scales that differ.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

_BLUE, _GREY, _BEST = "#1f6feb", "#8b949e", "#cf222e"
_A_ROW = 3  # panels beside each other
_LOSS = "log-loss"
_WIDE = 100  # times the lowest value: beyond, the twos and fives between powers of ten stand too close


def plots(study: Any) -> dict[str, bytes]:
    """Title -> PNG: the loss by trial, the importance of parameters and the loss by each, as far as there is enough."""
    import optuna

    carried = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    pruned = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.PRUNED,))
    if not carried:
        return {}
    found = {"Loss by trial": _history(carried, pruned), "Loss by parameter": _by_parameter(carried)}
    try:
        shares = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):
        return found  # one trial, or equal ones, say nothing about importance
    return {**found, "Importance of parameters": _importance(shares)}


def _history(carried: Sequence[Any], pruned: Sequence[Any]) -> bytes:
    figure, ((axes,),) = _figure(9.5, 3.6, 1, 1)
    numbers, losses = [trial.number for trial in carried], [trial.value for trial in carried]
    axes.step(numbers, np.minimum.accumulate(losses), where="post", color=_BLUE, linewidth=1.4, label="the best so far")
    axes.scatter(numbers, losses, color=_BLUE, s=22, zorder=3, label="carried through")
    if pruned:
        # Where they stood when they were stopped is a loss of fewer rows: only that there were some is drawn.
        along = axes.get_xaxis_transform()
        places = [trial.number for trial in pruned]
        axes.scatter(places, [0.02] * len(pruned), marker="|", color=_GREY, transform=along, label="stopped early")
    axes.set(title="Loss by trial", xlabel="trial", ylabel=_LOSS)
    axes.legend(frameon=False)
    return _png(figure)


def _by_parameter(carried: Sequence[Any]) -> bytes:
    """One panel a parameter, on the scale on which it was searched."""
    best = min(carried, key=lambda trial: trial.value)
    names = list(best.params)
    rows = -(-len(names) // _A_ROW)
    figure, panels = _figure(11, 0.3 + 2.7 * rows, rows, min(_A_ROW, len(names)), sharey=True)
    for axes, name in zip(panels.flat, names, strict=False):
        for trials, colour, size in ((carried, _BLUE, 18), ([best], _BEST, 40)):
            values = [trial.params[name] for trial in trials]
            axes.scatter(values, [trial.value for trial in trials], color=colour, s=size)
        if getattr(best.distributions[name], "log", False):
            _log_scale(axes)
        axes.set(xlabel=name)
    for axes in panels[:, 0]:
        axes.set(ylabel=_LOSS)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    panels.flat[0].set_title("red: the best trial", loc="left", fontsize=10)
    return _png(figure)


def _log_scale(axes: Any) -> None:
    """With plain numbers; of powers of ten alone a narrow range would show one, or none."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    wide = high / low > _WIDE
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _importance(shares: dict[str, float]) -> bytes:
    figure, ((axes,),) = _figure(9.5, 0.9 + 0.35 * len(shares), 1, 1)
    names = sorted(shares, key=lambda name: shares[name])
    axes.barh(names, [shares[name] for name in names], color=_BLUE, height=0.6)
    axes.set(title="Importance of parameters", xlabel="share of the loss's variance that it explains")
    return _png(figure)


def _figure(width: float, height: float, rows: int, columns: int, *, sharey: bool = False) -> tuple[Any, Any]:
    """And its panels, (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
