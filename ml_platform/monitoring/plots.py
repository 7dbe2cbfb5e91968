"""Pictures of a service's performance, as base64 PNG."""

import base64
import io

import polars as pl

from ml_platform.monitoring.performance import COHORT


def performance_plot(history: pl.DataFrame) -> str:
    """Log-loss by day of asking, one line a model version."""
    return base64.b64encode(performance_png(history)).decode()


def performance_png(history: pl.DataFrame) -> bytes:
    """As ``performance_plot``, the picture's bytes. ``history``: cohorts, each as last looked at."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots()
    judged = history.filter(pl.col("log_loss").is_not_null())
    for (version,), rows in judged.group_by(["model_version"], maintain_order=True):
        axes.plot(rows[COHORT].to_list(), rows["log_loss"].to_list(), marker=".", label=f"version {version}")
    axes.set_ylabel("log-loss on late labels")
    axes.grid(alpha=0.3)
    if not judged.is_empty():
        axes.legend()
    figure.autofmt_xdate()
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()
