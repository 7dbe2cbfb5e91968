"""A picture of drift: days across, features down, how near each distance came to its threshold."""

import base64
import io

import numpy as np
import polars as pl

from ml_platform.monitoring.drift import SCORE
from ml_platform.stores.delta import PARTITION

_MOST_FEATURES = 24  # the names of more cannot be read


def drift_plot(rows: pl.DataFrame) -> str:
    """As base64 PNG. rows: of a policy's drift table, at least one."""
    return base64.b64encode(drift_png(rows)).decode()


def drift_png(rows: pl.DataFrame) -> bytes:
    """Distances in multiples of the threshold, from 1 on sharp; the features that came nearest to it, those first."""
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure

    names, days, grid = _grid(rows)
    figure = Figure(figsize=(10, 1.4 + 0.22 * len(names)), layout="constrained")
    axes = figure.subplots()
    # White is half way, the deepest red twice the threshold: what pages is dark.
    norm = TwoSlopeNorm(vmin=0.0, vcenter=0.75, vmax=2.0)
    drawn = axes.imshow(grid, aspect="auto", cmap="RdBu_r", norm=norm, interpolation="nearest")
    sharp = np.argwhere(grid >= 1)
    axes.scatter(sharp[:, 1], sharp[:, 0], marker="x", s=14, linewidths=1.2, color="black")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    step = max(1, len(days) // 12)
    axes.set_xticks(range(0, len(days), step), [f"{day:%d %b}" for day in days[::step]], fontsize=7)
    axes.set_facecolor("0.85")
    axes.set_title("distance / threshold (x: sharp; grey: not compared)", fontsize=9)
    figure.colorbar(drawn, ax=axes, ticks=[0, 0.5, 1, 1.5, 2], fraction=0.03, pad=0.01)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()


def _grid(rows: pl.DataFrame) -> tuple[list[str], list, np.ndarray]:  # type: ignore[type-arg]
    told = rows.filter(pl.col("of") != SCORE).with_columns(
        near=pl.col("distance") / pl.col("threshold"), name=pl.col("feature")
    )
    nearest = (
        told.group_by("name").agg(pl.col("near").max()).sort("near", "name", descending=[True, False], nulls_last=True)
    )
    names, days = nearest["name"].head(_MOST_FEATURES).to_list(), told[PARTITION].unique().sort().to_list()
    grid = np.full((len(names), len(days)), np.nan)
    down, across = ({thing: place for place, thing in enumerate(things)} for things in (names, days))
    for row in told.filter(pl.col("near").is_not_null(), pl.col("name").is_in(names)).iter_rows(named=True):
        grid[down[row["name"]], across[row[PARTITION]]] = row["near"]
    return names, days, grid
