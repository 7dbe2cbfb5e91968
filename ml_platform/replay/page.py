"""A replay's page for people: the table, the plots and every decision with its reason."""

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform import metrics
from ml_platform.monitoring.performance import newest
from ml_platform.monitoring.plots import performance_png
from ml_platform.replay.summary import Event, Summary, judged_answers
from ml_platform.spec import TooFewLabels
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import DECISION

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ddd;padding:.3em .8em;text-align:left;"
    "vertical-align:top}td:first-child{white-space:nowrap}img{max-width:100%}h2{margin-top:2em}"
)


def write_page(summary: Summary, lake: Lake, ledger: Ledger, policy: str | None, target: Path) -> Path:
    """Write the page of a replay; returns its path."""
    history = newest(lake.scan(f"performance/{summary.service}").collect())
    answers = judged_answers(lake, summary.service)
    pictures = [
        ("Log-loss on late labels by day asked", performance_png(history)),
        ("AUC of all answers so far", _auc_png(answers)),
        ("Answers and truths", _counts_png(history)),
        ("Loss of the judged week, in multiples of the champion's first", _ratio_png(ledger, policy)),
    ]
    body = [
        f"<h1>{html.escape(summary.service)}: {summary.first_day} to {summary.last_day}</h1>",
        _table(["", ""], headline(summary)),
        *(f"<h2>{title}</h2>{_image(title, png)}" for title, png in pictures),
        _events("Retrainings", summary.retrainings),
        _events("Rollouts", summary.rollouts),
        _events("Promotions", summary.promotions),
        _events("Refusals", summary.refusals),
        *_failures(summary),
        _decisions(ledger, policy),
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Replay of {html.escape(summary.service)}</title>"
        f"<style>{_STYLE}</style>{''.join(body)}"
    )
    return target


def headline(summary: Summary) -> list[tuple[str, str]]:
    """The rows of the closing table."""
    auc = "no labels" if summary.auc is None else f"{summary.auc:.4f}"
    loss = "no labels" if summary.log_loss is None else f"{summary.log_loss:.4f}"
    return [
        ("days", f"{summary.days} ({summary.first_day} to {summary.last_day})"),
        ("predictions", f"{summary.predictions:,} ({summary.predictions_doubled} doubled)"),
        ("truths that arrived", f"{summary.labels:,} ({summary.judged:,} with a label)"),
        ("AUC", auc),
        ("log-loss", loss),
        ("champion", f"version {summary.champion} of {summary.versions}"),
        ("retrainings", str(len(summary.retrainings))),
        ("failed steps", str(len(summary.failures))),
        ("rollouts", str(len({event.version for event in summary.rollouts}))),
        ("promotions, refusals", f"{len(summary.promotions)}, {len(summary.refusals)}"),
        ("served values recomputed", f"{summary.values_compared:,}"),
        ("of them different", str(summary.values_mismatched)),
        ("seconds", f"{summary.seconds:,.0f}"),
        ("inside assets", f"{summary.work_seconds:,.0f}"),
        ("orchestration", f"{summary.orchestration_seconds:,.0f}"),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head) if any(head) else ""
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{lines}</table>"


def _events(title: str, events: Sequence[Event]) -> str:
    if not events:
        return f"<h2>{title}</h2><p>none</p>"
    return f"<h2>{title}</h2>" + _table(["date", "version", "reason"], [(e.date, e.version, e.reason) for e in events])


def _failures(summary: Summary) -> list[str]:
    rows = [(failed.date, failed.step, failed.partition or "", failed.reason) for failed in summary.failures]
    return ["<h2>Steps that failed</h2>", _table(["date", "step", "day", "reason"], rows)] if rows else []


def _decisions(ledger: Ledger, policy: str | None) -> str:
    entries = ledger.entries(DECISION, policy) if policy else []
    rows = [(entry.key, str(entry.body["answer"]), str(entry.body["reason"])) for entry in entries]
    return "<h2>Every decision</h2>" + _table(["day", "answer", "reason"], rows)


def _image(title: str, png: bytes) -> str:
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _figure(draw: Callable[[Any], None]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.autofmt_xdate()
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()


def _auc_png(answers: pl.DataFrame) -> bytes:
    judged = answers.filter(pl.col("value").is_not_null())
    days = judged["known_date"].unique().sort().to_list() if judged.height else []
    shown, values = [], []
    for day in days:
        until = judged.filter(pl.col("known_date") <= day)
        try:
            values.append(metrics.auc(until["value"].to_numpy(), until["probability"].to_numpy()))
        except TooFewLabels:
            continue  # one class only so far
        shown.append(day)
    return _figure(lambda axes: axes.plot(shown, values, label="AUC so far"))


def _counts_png(history: pl.DataFrame) -> bytes:
    daily = history.group_by("cohort").agg(pl.col("answered", "labelled").sum()).sort("cohort")

    def draw(axes: Any) -> None:
        axes.plot(daily["cohort"].to_list(), daily["answered"].to_list(), label="answers")
        axes.plot(daily["cohort"].to_list(), daily["labelled"].to_list(), label="with a label")
        axes.set_ylim(bottom=0)

    return _figure(draw)


def _ratio_png(ledger: Ledger, policy: str | None) -> bytes:
    entries = ledger.entries(DECISION, policy or "")
    ratios = [e.body["measures"].get("ratio") for e in entries]  # none where nothing could be judged: the line breaks
    retrained = [e for e in entries if e.body["answer"] == "retrain" and "ratio" in e.body["measures"]]

    def draw(axes: Any) -> None:
        if not any(ratio is not None for ratio in ratios):
            axes.text(0.5, 0.5, "no week has been judged yet", ha="center", transform=axes.transAxes)
            return
        axes.plot([e.at for e in entries], ratios, label="ratio")
        axes.plot([e.at for e in retrained], [e.body["measures"]["ratio"] for e in retrained], "rv", label="retrain")
        axes.axhline(1.0, color="grey", linewidth=0.8)

    return _figure(draw)
