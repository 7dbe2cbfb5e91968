"""The page of a backtest: table, picture, and every retraining with its reason."""

import html
from base64 import b64encode
from collections.abc import Sequence

from ml_platform.decisions.backtest import RANDOM, Backtest
from ml_platform.decisions.backtest_figures import Outcome
from ml_platform.decisions.backtest_table import head, lines, sentences

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#1f2328}"
    "table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}"
    "td,th{border-bottom:1px solid #d8dee4;padding:.25em .7em;text-align:left;vertical-align:top}"
    "th{color:#57606a;font-size:.85em}img{max-width:100%}small{color:#57606a}"
    "td:first-child{white-space:nowrap}h2{margin-top:2em;font-size:1.15rem}"
)


def page(found: Backtest, png: bytes, price: float | None, parts: Sequence[Backtest] = ()) -> str:
    """HTML with its picture inside; nothing is fetched. parts: the same replays judged from other days on."""
    title = f"Backtest of {found.model}"
    body = [
        f"<h1>{_safe(title)}</h1>",
        _table(head(found, price), lines(found, price)),
        *(f"<p><small>{_safe(each)}</small></p>" for each in sentences(found)),
        f'<img alt="log-loss saved by each policy" src="data:image/png;base64,{b64encode(png).decode()}">',
        *(_part(part, price) for part in parts),
        *(_way(one) for one in found.outcomes if one.all and one.name != RANDOM),
    ]
    top = f'<meta charset="utf-8"><title>{_safe(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{top}</head><body>\n{"".join(body)}\n</body></html>\n'


def _part(part: Backtest, price: float | None) -> str:
    told = f"<p><small>{_safe(sentences(part)[0])}</small></p>"
    return f"<h2>From {part.question.since} on</h2>{_table(head(part, price), lines(part, price))}{told}"


def _way(one: Outcome) -> str:
    rows = [
        [str(each.day), "took over" if each.promoted else "kept back", each.reason, each.verdict] for each in one.all
    ]
    told = _table(["evening of", "", "why", "the gate"], rows)
    return f"<h2>{_safe(one.name)}: {_safe(one.description)}</h2>{told}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_safe(each)}</th>" for each in titles)
    body = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _safe(thing: object) -> str:
    return html.escape(str(thing))
