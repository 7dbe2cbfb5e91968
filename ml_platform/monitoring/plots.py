"""Pictures of a service's performance, as base64 PNG."""

import base64
import io
from datetime import date

import polars as pl

from ml_platform.monitoring.performance import COHORT, COLUMNS, cost_sum

_FEW = 50  # labels of a version in a day: a canary's first ones say little, and would stretch the axis


def performance_plot(history: pl.DataFrame) -> str:
    """Log-loss, business metrics and the share of truths that arrived, by day of asking."""
    return base64.b64encode(performance_png(history)).decode()


def performance_png(history: pl.DataFrame) -> bytes:
    """As ``performance_plot``, the picture's bytes. ``history``: cohorts, each as last looked at.

    A line breaks where a version has no day, or one of few labels.
    """
    from matplotlib.figure import Figure

    business = [name for name in history.columns if name not in COLUMNS and cost_sum(name) in history.columns]
    named = {"log_loss": "log-loss on late labels", **{name: name for name in business}, "maturity": "truths arrived"}
    figure = Figure(figsize=(9, 2.2 + 1.5 * (len(named) - 1)), layout="constrained")
    heights = [2.0 if name == "log_loss" else 1.0 for name in named]
    panels = figure.subplots(len(named), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (column, title) in zip(panels, named.items(), strict=True):
        for number, ((version,), rows) in enumerate(history.group_by(["model_version"], maintain_order=True)):
            colour = f"C{number % 10}"
            enough = pl.lit(value=True) if column == "maturity" else pl.col("labelled") >= _FEW
            days, values = _by_day(rows, pl.when(enough).then(pl.col(column)))
            if any(value is not None for value in values):
                axes.plot(days, values, marker=".", color=colour, label=f"version {version}")
            if column == "log_loss" and "estimated_log_loss" in rows.columns:
                promised = pl.when(pl.col("answered") >= _FEW).then(pl.col("estimated_log_loss"))
                axes.plot(*_by_day(rows, promised), color=colour, linestyle=":", linewidth=1)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    panels[-1].set_ylim(-0.03, 1.03)
    if history.height:
        panels[0].plot([], [], color="grey", linestyle=":", label="estimated without labels; decides nothing")
        panels[0].legend(fontsize="small")
    figure.align_ylabels(list(panels))
    figure.autofmt_xdate()
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()


def _by_day(rows: pl.DataFrame, value: pl.Expr) -> tuple[list[date], list[float | None]]:
    """Every day from the first to the last, those without a row, too."""
    found = rows.select(COHORT, value=value).sort(COHORT).upsample(COHORT, every="1d")
    return found[COHORT].to_list(), found["value"].to_list()
