"""The model card of a version, in Markdown: what it is for, what it was made of, how good it is and where not.

After Mitchell et al., Model Cards for Model Reporting (2019).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import polars as pl

from ml_platform.evaluation.figures import Figures
from ml_platform.evaluation.gate import Judged
from ml_platform.spec import ModelSpec

_PLACES = ("trained_from", "trained_until", "holdout_from", "holdout_until", "training_set", "content_hash", "code")


def card(
    spec: ModelSpec,
    title: str,
    figures: Figures,
    importances: Mapping[str, float],
    judged: Judged,
    facts: Mapping[str, Any],
) -> str:
    """The whole card. importances: input -> share (0..1)."""
    sections = {
        "What it is for": _purpose(spec),
        "What it was made of": _origin(spec, facts),
        "How good it is": _quality(figures),
        "Where it is weak": _weak(figures),
        "What it goes by": _inputs(importances),
        "The gate": [f"- **{name}** {found.state}: {found.reason}" for name, found in judged.criteria.items()],
    }
    verdict = f"**{judged.verdict.state}**: {judged.verdict.reason}"
    told = [f"# {title}", verdict, *(f"## {head}\n\n" + "\n".join(lines) for head, lines in sections.items())]
    return "\n\n".join(told) + "\n"


def _purpose(spec: ModelSpec) -> list[str]:
    return [
        spec.description,
        "",
        f"It answers: {spec.task.description} A question is asked {_words(spec.task.lead)} before the event.",
        f"The truth: {spec.task.label.description} Rows without a truth are neither trained on nor judged.",
        "It is not meant for other questions, other lead times, or entities outside the data it was trained on.",
        f"Owner: {spec.owner}.",
    ]


def _words(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours:g} hour{'' if hours == 1 else 's'}"


def _origin(spec: ModelSpec, facts: Mapping[str, Any]) -> list[str]:
    window = (
        "everything before the holdout" if spec.train_window is None else f"the {spec.train_window.days} days before"
    )
    return [
        f"- estimator: {spec.estimator}, seed {spec.seed}, window: {window}",
        f"- views: {', '.join(spec.views)}",
        *(f"- {name}: {facts[name]}" for name in _PLACES if name in facts),
    ]


def _quality(figures: Figures) -> list[str]:
    if figures.unmeasured is not None:
        return [f"Not measured: {figures.unmeasured}"]
    names = list(figures.of)
    lines = [f"| on the same rows | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name in next(iter(figures.of.values())):
        cells = [f"{of[name].value:.4f} ({of[name].low:.4f} to {of[name].high:.4f})" for of in figures.of.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", "In brackets: 95% intervals over days drawn with replacement."]


def _weak(figures: Figures) -> list[str]:
    table = figures.slices
    if table is None or table.is_empty():
        return ["No slices are declared." if figures.unmeasured is None else "Not measured."]
    # What was judged, or would be if there were a champion.
    whole = float(table.filter(pl.col("slice") == table["slice"][0]).select(pl.col("rows").sum()).item())
    supported = table.filter(pl.col("rows") >= whole / 50).sort("auc", nulls_last=True)
    lines = ["Lowest AUC among groups of at least 2% of the rows:", ""]
    for row in supported.drop_nulls("auc").head(5).iter_rows(named=True):
        worth = f"AUC {row['auc']:.3f}, log-loss {row['log_loss']:.3f} on {row['rows']} rows"
        lines.append(f"- {row['slice']} {row['group']}: {worth}")
    few = table.filter(~pl.col("judged")).height
    rest = f"{few} of {table.height} groups have too few rows to be judged."
    return [*lines, "", "Without a champion no group is judged." if _alone(table) else rest]


def _alone(table: pl.DataFrame) -> bool:
    return table["champion_log_loss"].null_count() == table.height


def _inputs(importances: Mapping[str, float]) -> list[str]:
    top = sorted(importances.items(), key=lambda item: -item[1])[:10]
    return [f"- {name}: {share:.1%}" for name, share in top] or ["Its estimator does not say."]
