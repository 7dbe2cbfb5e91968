"""A rollout's evidence over time, as a picture and as a page for people."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ml_platform.serving.referee import read_history
from ml_platform.spec import RolloutPolicy
from ml_platform.stores.rollout_state import Rollout, RolloutFile, history_path

Looks = Sequence[Mapping[str, Any]]
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ddd;padding:.3em .8em;text-align:left;"
    "vertical-align:top}td:first-child{white-space:nowrap}img{max-width:100%}h2{margin-top:2em}"
)
_SMALLEST, _LARGEST = 1e-4, 1e8  # where the picture's e-values are cut


def shown(policy: RolloutPolicy, stands: Rollout, file: RolloutFile, reports: Path) -> tuple[dict[str, Any], Path]:
    """Write the page; returns what an asset says of the rollout, with its ``picture`` (base64 PNG), and the path."""
    looks = read_history(history_path(file, stands.number))
    picture = base64.b64encode(evidence_png(policy, looks)).decode() if looks else ""
    target = reports / f"rollout-{policy.service}-{stands.number}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(policy, stands, looks, picture))
    told: dict[str, Any] = {
        "canary": stands.canary,
        "champion": stands.champion,
        "phase": stands.phase,
        "share": stands.share,
        "reason": stands.reason,
    }
    if looks:
        last = looks[-1]
        told |= {"against": _cut(last["against"]), "waits_for": last["waits_for"], "picture": picture}
        told |= {f"in_favour_{name}": _cut(last["guards"][name]["in_favour"]) for name in policy.promote_on}
    return told, target


def evidence_png(policy: RolloutPolicy, looks: Looks) -> bytes:
    """The canary's share, the evidence against it and the evidence for it, one below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    share, against, in_favour = figure.subplots(3, 1, sharex=True, height_ratios=(1, 2, 2))
    times = [datetime.fromisoformat(look["at"]) for look in looks]
    share.step(times, [100 * look["share"] for look in looks], where="post", color="black")
    share.set_ylabel("canary's share, %")
    enough = 1 / policy.alpha
    for axes, side in ((against, "against"), (in_favour, "in_favour")):
        names = policy.guards if side == "against" else policy.promote_on
        for name in names:
            values = [_cut(look["guards"].get(name, {}).get(side, 1.0)) for look in looks]
            axes.plot(times, values, marker=".", markersize=3, label=name)
        if side == "against":
            axes.plot(times, [_cut(look["against"]) for look in looks], color="black", linewidth=2, label="together")
        axes.axhline(enough, color="red" if side == "against" else "green", linestyle="--", linewidth=1)
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", fontsize=8)
    against.set_ylabel(f"E that it is worse\n(taken back at {enough:g})")
    in_favour.set_ylabel(f"E that it is not worse\n(promoted at {enough:g})")
    share.grid(alpha=0.3)
    figure.autofmt_xdate()
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()


def _cut(value: float) -> float:
    return min(max(value, _SMALLEST), _LARGEST)


def page(policy: RolloutPolicy, stands: Rollout, looks: Looks, picture: str) -> str:
    """The page. ``picture``: base64 PNG of ``evidence_png``; empty: nothing was looked at yet."""
    title = f"Rollout {stands.number} of {stands.model}: version {stands.canary} over version {stands.champion}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _table(
            ["", ""],
            [
                ("stands at", f"{stands.phase.replace('_', ' ')}{', paused' if stands.resting else ''}"),
                ("share", f"{stands.share:.0%}"),
                ("begun", f"{stands.begun:%Y-%m-%d %H:%M} UTC"),
                ("since", f"{stands.since:%Y-%m-%d %H:%M} UTC"),
                ("because", stands.reason),
                *([("waits for", str(looks[-1]["waits_for"]))] if looks and stands.runs else []),
                *([("answers scored unseen, dropped", _counts(looks[-1]))] if looks else []),
            ],
        ),
    ]
    if looks:
        parts += [
            "<h2>Evidence over time</h2>",
            f'<img alt="evidence over time" src="data:image/png;base64,{picture}">',
            "<h2>Each guard, as last looked at</h2>",
            _table(
                ["guard", "canary", "champion", "E worse", "E not worse", ""],
                [_guard(name, found) for name, found in looks[-1]["guards"].items()],
            ),
            "<h2>Steps</h2>",
            _table(["at (UTC)", "phase", "share", "because"], _steps(looks)),
        ]
    else:
        parts.append("<p>Nothing was looked at yet.</p>")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style>{''.join(parts)}"
    )


def _counts(look: Mapping[str, Any]) -> str:
    return f"{look['shadowed']:,}, {look['dropped']:,}; truths {look['truths']:,}"


def _guard(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    values = (f"{found['against']:.3g}", f"{found['in_favour']:.3g}")
    return (name, f"{found['canary']:,}", f"{found['champion']:,}", *values, found["sentence"])


def _steps(looks: Looks) -> list[tuple[str, ...]]:
    """A row for each change of phase or share."""
    rows: list[tuple[str, ...]] = []
    last = None
    for look in looks:
        now = (look["phase"], look["share"])
        if now != last:
            at = datetime.fromisoformat(look["at"])
            rows.append((f"{at:%Y-%m-%d %H:%M}", look["phase"], f"{look['share']:.0%}", look["reason"]))
        last = now
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head) if any(head) else ""
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{lines}</table>"
