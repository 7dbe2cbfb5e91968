"""The picture of a backtest: what each policy saved against never, day by day, and when it retrained."""

import io
from datetime import date
from typing import Any

import numpy as np

from ml_platform.decisions.backtest import RANDOM, TIMER, WEEKLY, Backtest
from ml_platform.decisions.backtest_figures import Outcome
from ml_platform.decisions.backtest_policies import DECLARED, DRIFT, NEVER

_COLOURS = {DECLARED: "#1f6feb", TIMER: "#bf8700", WEEKLY: "#1a7f37", DRIFT: "#cf222e", RANDOM: "#8b949e"}
_OTHERS = ("#8250df", "#0a7ea4", "#953800", "#57606a")
_BEHIND = 2  # z-order of what stands behind the declared policy


def picture(found: Backtest) -> bytes:
    """PNG. Lines rise where a policy answers better than the first version; a hollow mark is a version that the gate
    kept back. Under them each policy's retrainings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.2), layout="constrained")
    saved, marks = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1.5])
    shown = [one for one in found.outcomes if one.name != NEVER]
    _band(saved, found)
    for number, one in enumerate(shown):
        colour = _COLOURS.get(one.name, _OTHERS[number % len(_OTHERS)])
        _line(saved, found, one, colour)
        if one.name != RANDOM:
            _marks(marks, one, len(shown) - number, colour)
    saved.axhline(0, color="#57606a", linewidth=1, label=f"{NEVER}: {_of(found, NEVER)}")
    saved.set(
        title=f"{found.model}: log-loss saved against never retraining, {found.days[0]} to {found.days[-1]}",
        ylabel="nats saved so far, summed over answers",
    )
    saved.legend(frameon=False, loc="upper left", fontsize=9)
    kept = [one for one in shown if one.name != RANDOM]
    marks.set_yticks([len(shown) - shown.index(one) for one in kept], [one.name for one in kept])
    marks.set_title("retrainings (hollow: the gate kept the version back)", fontsize=10)
    for axes in (saved, marks):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    marks.margins(y=0.25)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110)
    return target.getvalue()


def _of(found: Backtest, name: str) -> str:
    one = found.of(name)
    return "" if one is None else f"{one.log_loss:.4f}"


def _line(axes: Any, found: Backtest, one: Outcome, colour: str) -> None:
    many = one.name == RANDOM
    label = f"{one.name}: {one.log_loss:.4f}, {len(one.retrainings)} retrainings{' each' if many else ''}"
    style = {"linestyle": "--"} if many else {"linewidth": 2.2 if one.name == DECLARED else 1.3}
    height = np.cumsum(one.saved)
    axes.plot(found.days, height, color=colour, label=label, zorder=_BEHIND + (one.name == DECLARED), **style)
    if many:
        return
    at = {day: place for place, day in enumerate(found.days)}
    for retraining in one.retrainings:
        if retraining.day in at:
            face = colour if retraining.promoted else "white"
            axes.plot(
                retraining.day,
                height[at[retraining.day]],
                "o",
                color=colour,
                markerfacecolor=face,
                markersize=5,
                zorder=4,
            )


def _band(axes: Any, found: Backtest) -> None:
    if found.drawn_saved:
        ways = np.cumsum(found.drawn_saved, axis=1)
        axes.fill_between(found.days, ways.min(axis=0), ways.max(axis=0), color="#d8dee4", alpha=0.6, linewidth=0)


def _marks(axes: Any, one: Outcome, height: int, colour: str) -> None:
    for promoted in (True, False):
        days: list[date] = [each.day for each in one.retrainings if each.promoted == promoted]
        face = colour if promoted else "white"
        axes.plot(days, [height] * len(days), "o", color=colour, markerfacecolor=face, markersize=6)
