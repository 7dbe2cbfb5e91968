"""Pictures of a service's performance, as base64 PNG."""

import base64
import io

import polars as pl

from ml_platform.monitoring.performance import COHORT, COLUMNS, cost_sum


def performance_plot(history: pl.DataFrame) -> str:
    """Log-loss, business metrics and the share of truths that arrived, by day of asking."""
    return base64.b64encode(performance_png(history)).decode()


def performance_png(history: pl.DataFrame) -> bytes:
    """As ``performance_plot``, the picture's bytes. ``history``: cohorts, each as last looked at."""
    from matplotlib.figure import Figure

    business = [name for name in history.columns if name not in COLUMNS and cost_sum(name) in history.columns]
    named = {"log_loss": "log-loss on late labels", **{name: name for name in business}, "maturity": "truths arrived"}
    figure = Figure(figsize=(9, 2.2 + 1.5 * (len(named) - 1)), layout="constrained")
    heights = [2.0 if name == "log_loss" else 1.0 for name in named]
    panels = figure.subplots(len(named), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (column, title) in zip(panels, named.items(), strict=True):
        for number, ((version,), rows) in enumerate(history.group_by(["model_version"], maintain_order=True)):
            colour = f"C{number % 10}"
            known = rows.filter(pl.col(column).is_not_null())
            if known.height:
                days, values = known[COHORT].to_list(), known[column].to_list()
                axes.plot(days, values, marker=".", color=colour, label=f"version {version}")
            if column == "log_loss" and "estimated_log_loss" in rows.columns:
                promised = rows["estimated_log_loss"].to_list()
                axes.plot(rows[COHORT].to_list(), promised, color=colour, linestyle=":", linewidth=1)
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
