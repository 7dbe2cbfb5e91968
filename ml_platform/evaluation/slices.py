"""The judged rows in groups: what each group's answers are worth, beside the champion's, with support."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.evaluation.intervals import Draws, paired_gains
from ml_platform.monitoring.grouped import in_order
from ml_platform.spec import Fairness, Slice
from ml_platform.training.training_set import LABEL

_SCHEMA = {
    "slice": pl.String,
    "group": pl.String,
    "rows": pl.Int64,
    "days": pl.Int64,
    "share_of_ones": pl.Float64,
    "auc": pl.Float64,
    "log_loss": pl.Float64,
    "champion_log_loss": pl.Float64,
    "gain": pl.Float64,
    "gain_low": pl.Float64,
    "gain_high": pl.Float64,
    "margin": pl.Float64,
    "beyond_margin": pl.Float64,
    "judged": pl.Boolean,
}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Labels and the probabilities of two models on the same rows; rival: None where there is none."""

    labels: pl.Series
    challenger: pl.Series
    rival: pl.Series | None


def slice_table(answers: Answers, grouped: pl.DataFrame, slices: Mapping[str, Slice], draws: Draws) -> pl.DataFrame:
    """One line a group, in the order of slices and groups.

    gain: log-loss won against the rival, with its 95 % interval over days. beyond_margin: share of resamples in which
    the group loses more than its margin. judged: whether its rows are enough for the gate.
    """
    lines, members = [], []
    for name, declared in slices.items():
        for group in in_order(grouped[name]):
            mine = (grouped[name] == group).to_numpy()
            members.append(mine)
            lines.append({"slice": name, "group": group, **_own(answers, mine, draws, declared)})
    if not lines:
        return pl.DataFrame(schema=_SCHEMA)
    if answers.rival is not None:
        losses = [metrics.row_losses(answers.labels, each) for each in (answers.rival, answers.challenger)]
        lines = _with_gains(lines, losses[0] - losses[1], np.stack(members, axis=1), draws)
    return pl.DataFrame(lines, schema=_SCHEMA)


def _own(answers: Answers, mine: np.ndarray, draws: Draws, declared: Slice) -> dict[str, Any]:
    labels, given = answers.labels.filter(mine), answers.challenger.filter(mine)
    days = np.unique(draws.day[mine]).size
    return {
        "rows": labels.len(),
        "days": days,
        "share_of_ones": labels.cast(pl.Float64).mean(),
        "auc": metrics.auc(labels, given) if labels.n_unique() == 2 else None,
        "log_loss": metrics.log_loss(labels, given),
        "champion_log_loss": None if answers.rival is None else metrics.log_loss(labels, answers.rival.filter(mine)),
        "margin": declared.margin,
        "judged": answers.rival is not None and labels.len() >= declared.min_rows and days > 1,
    }


def _with_gains(
    lines: Sequence[dict[str, Any]], differences: np.ndarray, members: np.ndarray, draws: Draws
) -> list[dict[str, Any]]:
    means, resampled = paired_gains(differences, members, draws)
    found = []
    for line, mean, drawn in zip(lines, means, resampled.T, strict=True):
        known = drawn[np.isfinite(drawn)]  # a resample may hold no day of the group
        low, high = np.quantile(known, [0.025, 0.975])
        beyond = float(np.mean(known < -line["margin"]))
        found.append({**line, "gain": mean, "gain_low": low, "gain_high": high, "beyond_margin": beyond})
    return found


def fairness_table(
    labels: pl.Series, probabilities: pl.Series, grouped: pl.DataFrame, declared: Fairness, least: Mapping[str, int]
) -> pl.DataFrame:
    """One line a group: share of ones, mean probability, who is called a one, rightly and wrongly.

    least: by slice, how many rows a group must have to be ``compared`` with others.

    called: share of rows at the threshold and above. true_positive_rate, false_positive_rate: of ones and of zeros.
    They are null where a group has none.
    """
    rows = pl.DataFrame({LABEL: labels.cast(pl.Boolean), "probability": probabilities})
    rows = rows.with_columns(called=pl.col("probability") >= declared.threshold)
    tables = []
    for name in declared.slices:
        order = {group: place for place, group in enumerate(in_order(grouped[name]))}
        found = rows.with_columns(grouped[name].alias("group")).group_by("group")
        table = found.agg(
            pl.len().cast(pl.Int64).alias("rows"),
            pl.col(LABEL).mean().alias("share_of_ones"),
            pl.col("probability").mean().alias("mean_probability"),
            pl.col("called").mean(),
            pl.col("called").filter(pl.col(LABEL)).mean().alias("true_positive_rate"),
            pl.col("called").filter(~pl.col(LABEL)).mean().alias("false_positive_rate"),
            compared=pl.len() >= least[name],
        )
        placed = table.sort(pl.col("group").replace_strict(order, return_dtype=pl.Int64))
        tables.append(placed.select(pl.lit(name).alias("slice"), pl.all()))
    return pl.concat(tables)
