"""A/B tests: what the canary's units cost beside the champion's, with intervals that may be watched all the time.

A rollout is one; an operator who lets it rest at a share (`ml-platform rollout pause`) runs it for as long as he likes.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from ml_platform.serving.ab import ABTest, Compared, Report, plot_columns
from ml_platform.serving.traffic import CANARY, CHAMPION, FALLBACK
from ml_platform.spec import RolloutPolicy
from ml_platform.spec.rollouts import ERRORS, LOSS, PROBABILITY, TRUTH
from ml_platform.stores.log_tail import LogTail
from ml_platform.stores.rollout_state import Rollout

_SIDES = {CANARY: "treatment", CHAMPION: "control"}


def compared(policy: RolloutPolicy) -> list[Compared]:
    """Failures, squared errors and the policy's own metrics."""
    own = [Compared(name=name, low=metric.low, high=metric.high) for name, metric in policy.metrics.items()]
    return [Compared(name=ERRORS), Compared(name=LOSS), *own]


def records(policy: RolloutPolicy, stands: Rollout, tail: LogTail, until: datetime) -> pl.DataFrame:
    """One record a unit that was assigned by chance, with what is known of its first question by then.

    Columns: unit, variant (treatment, control), probability (of the treatment), one a metric, null where nothing is
    known. A question that the canary failed at counts as its failure, whoever answered.
    """
    versions = {CANARY: stands.canary, CHAMPION: stands.champion}
    answers = [one for one in tail.new("predictions") if one["variant"] != FALLBACK]
    failed = [{**one, "probability": None} for one in tail.new("failures")]
    asked = [
        one
        for one in (*answers, *failed)
        if versions.get(one["variant"]) == one["version"]
        and 0 < one["chance"] < 1
        and stands.begun <= datetime.fromisoformat(one["asked_at"]) < until
    ]
    truths = {one["id"]: one["value"] for one in tail.new("labels") if datetime.fromisoformat(one["known_at"]) <= until}
    by = policy.evidence_by or ()
    rows = [
        {
            "unit": "\x1f".join(str(one["entities"][name]) for name in by) if by else one["id"],
            "asked_at": one["asked_at"],
            "variant": _SIDES[one["variant"]],
            "probability": one["chance"] if one["variant"] == CANARY else 1 - one["chance"],
            ERRORS: float(one["probability"] is None),
            "said": one["probability"],
            TRUTH: truths.get(one["id"]),
        }
        for one in asked
    ]
    kinds = {"unit": pl.String, "asked_at": pl.String, "variant": pl.String, "probability": pl.Float64}
    kinds |= {ERRORS: pl.Float64, "said": pl.Float64, TRUTH: pl.Int64}
    frame = pl.DataFrame(rows, schema=kinds).sort("asked_at", "unit").unique("unit", keep="first", maintain_order=True)
    weights = frame.select("unit", "variant", "probability", ERRORS)
    said = frame.select(pl.col("said").alias(PROBABILITY), TRUTH)
    known = pl.col(PROBABILITY).is_not_null() & pl.col(TRUTH).is_not_null()
    costs = {LOSS: (pl.col(PROBABILITY) - pl.col(TRUTH)) ** 2, **{n: m.value for n, m in policy.metrics.items()}}
    return weights.hstack(said.select(**{n: pl.when(known).then(c.cast(pl.Float64)) for n, c in costs.items()}))


def reports(policy: RolloutPolicy, found: pl.DataFrame) -> list[Report]:
    """Of each metric, in order; the interval holds at every look at once, with the policy's ``alpha``."""
    return [ABTest.nothing(each, alpha=policy.alpha).after(found).report() for each in compared(policy)]


def page(stands: Rollout, found: Sequence[Report]) -> str:
    """For people: the sentence of each metric and its interval, unit by unit."""
    title = f"A/B test: version {stands.canary} beside version {stands.champion} of {stands.model}"
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>since {stands.begun:%Y-%m-%d %H:%M} UTC</p>"]
    for report in found:
        picture = base64.b64encode(interval_png(report)).decode()
        parts += [
            f"<h2>{html.escape(report.metric)}</h2><p>{html.escape(report.sentence)}</p>",
            f'<img alt="{html.escape(report.metric)}" src="data:image/png;base64,{picture}">',
        ]
    style = "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em}img{max-width:100%}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{style}</style>{''.join(parts)}"
    )


_MORE = 1.5  # widths of the last interval that are drawn above and below it


def interval_png(report: Report) -> bytes:
    """The difference and its interval against the number of units."""
    from matplotlib.figure import Figure

    columns: Mapping[str, Any] = plot_columns(report.points)
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(columns["units"], columns["low"], columns["high"], alpha=0.25, label="interval")
    axes.plot(columns["units"], columns["difference"], label="canary less champion")
    axes.axhline(0.0, color="black", linewidth=0.8)
    if len(columns["units"]):  # the first intervals are as wide as the metric, and would press the last ones flat
        low, high = columns["low"][-1], columns["high"][-1]
        axes.set_ylim(min(low, 0.0) - _MORE * (high - low), max(high, 0.0) + _MORE * (high - low))
    axes.set_xlabel("units with a value")
    axes.grid(alpha=0.3)
    axes.legend()
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()
