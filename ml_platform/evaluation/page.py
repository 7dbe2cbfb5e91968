"""The page of one challenger: HTML with its plots inside, no script, nothing fetched."""

import html
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from ml_platform.evaluation.figures import Figures
from ml_platform.evaluation.gate import Judged
from ml_platform.evaluation.intervals import Interval

_TITLES = {
    "auc": "AUC",
    "log_loss": "log-loss",
    "pr_auc": "PR-AUC",
    "brier": "Brier score",
    "calibration_gap": "calibration gap",
    "calibration_error": "calibration error",
}
_MINUS = "\N{MINUS SIGN}"  # as wide as a plus, so that columns of numbers stand in line
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328 }
h2 { margin: 2.2rem 0 .4rem; font-size: 1.15rem; border-bottom: 1px solid #d1d9e0; padding-bottom: .2rem }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums }
td, th { border-bottom: 1px solid #d8dee4; padding: .2rem .7rem; text-align: left; vertical-align: top }
th { font-weight: 600; color: #57606a; font-size: .85rem } td.n, th.n { text-align: right; white-space: nowrap }
small { color: #57606a }
.few small { color: inherit } .wide small { display: block }
img { max-width: 100%; display: block; margin: .8rem 0 } .few td { color: #8b949e }
.verdict { padding: .7rem 1rem; border-left: .4rem solid #8b949e; background: #f6f8fa; border-radius: .2rem }
.pass { border-color: #1a7f37 } .fail { border-color: #cf222e } .unknown, .warn { border-color: #bf8700 }
b.pass { color: #1a7f37 } b.fail { color: #cf222e } b.unknown, b.warn { color: #9a6700 }
"""


def page(title: str, figures: Figures, plots: Mapping[str, bytes], judged: Judged, facts: Mapping[str, Any]) -> str:
    """The whole page. plots: title -> PNG. facts: printed at its end."""
    state, reason = judged.verdict.state, judged.verdict.reason
    parts = [
        f"<h1>{_safe(title)}</h1>",
        f'<p class="verdict {state}"><b class="{state}">{state}</b>: {_safe(reason)}</p>',
        "<h2>The gate</h2>",
        _table(["criterion", "", "reason"], [], [_criterion(*each) for each in judged.criteria.items()]),
        "<h2>Measures on the same rows</h2>",
        _measured(figures),
        *(_image(name, png) for name, png in plots.items()),
    ]
    if figures.slices is not None and not figures.slices.is_empty():
        parts += ["<h2>Groups</h2>", _groups(figures.slices)]
    if figures.fairness is not None:
        parts += ["<h2>Fairness</h2>", _fairness(figures.fairness)]
    told = [[_safe(key), _safe(f"{fact:.4f}" if isinstance(fact, float) else fact)] for key, fact in facts.items()]
    parts += ["<h2>Where it comes from</h2>", _table(["", ""], [], told)]
    head = f'<meta charset="utf-8"><title>{_safe(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{"".join(parts)}\n</body></html>\n'


def _safe(thing: object) -> str:
    return html.escape(str(thing))


def _table(head: Sequence[str], numbers: Iterable[int], rows: Iterable[Sequence[str]], pale: Iterable[int] = ()) -> str:
    """Cells are HTML already. numbers: columns that stand to the right. pale: rows that count for little."""
    right, grey = set(numbers), set(pale)

    def line(cells: Sequence[str], tag: str, mark: str = "") -> str:
        made = (f"<{tag}{' class=n' if n in right else ''}>{cell}</{tag}>" for n, cell in enumerate(cells))
        return f"<tr{mark}>{''.join(made)}</tr>"

    body = (line(row, "td", " class=few" if n in grey else "") for n, row in enumerate(rows))
    return f"<table>{line(head, 'th') if any(head) else ''}{''.join(body)}</table>"


def _image(name: str, png: bytes) -> str:
    return f'<img alt="{_safe(name)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def _criterion(name: str, verdict: Any) -> list[str]:
    return [_safe(name), f'<b class="{verdict.state}">{verdict.state}</b>', _safe(verdict.reason)]


def _measured(figures: Figures) -> str:
    if figures.unmeasured is not None:
        return f"<p>not measured: {_safe(figures.unmeasured)}</p>"
    gained = ["challenger less champion"] if figures.gains else []
    rows = []
    for name in next(iter(figures.of.values())):
        cells = [_with_interval(measured[name]) for measured in figures.of.values()]
        cells += [_with_interval(figures.gains[name], sign="+")] if gained else []
        rows.append([_safe(_TITLES.get(name, name)), *cells])
    note = "<p><small>with 95% intervals over days drawn with replacement, paired where models are compared</small></p>"
    return f'<div class="wide">{_table(["", *figures.of, *gained], range(1, 6), rows)}</div>{note}'


def _with_interval(found: Interval, sign: str = "") -> str:
    text = f"{found.value:{sign}.4f} <small>({found.low:{sign}.4f} to {found.high:{sign}.4f})</small>"
    return text.replace("-", _MINUS)


def _groups(table: pl.DataFrame) -> str:
    head = ["slice", "group", "rows", "days", "ones", "AUC", "log-loss", "champion's", "gain", "margin"]
    rows, pale = [], []
    for number, row in enumerate(table.iter_rows(named=True)):
        gain = ""
        if row["gain"] is not None:
            gain = _with_interval(Interval(value=row["gain"], low=row["gain_low"], high=row["gain_high"]), sign="+")
        figures = [_number(row[name]) for name in ("auc", "log_loss", "champion_log_loss")]
        support = [f"{row['rows']:,}", str(row["days"]), f"{row['share_of_ones']:.1%}"]
        rows.append([_safe(row["slice"]), _safe(row["group"]), *support, *figures, gain, f"{row['margin']:g}"])
        if not row["judged"]:
            pale.append(number)
    return _table(head, range(2, 10), rows, pale) + "<p><small>pale: shown, but not judged</small></p>"


def _fairness(table: pl.DataFrame) -> str:
    head = ["slice", "group", "rows", "ones", "mean probability", "called", "true positive rate", "false positive rate"]
    names = table.columns[3:-1]
    rows: list[list[str]] = []
    pale: list[int] = []
    for (name,), groups in table.group_by("slice", maintain_order=True):
        for row in groups.iter_rows(named=True):
            if not row["compared"]:
                pale.append(len(rows))
            figures = [_number(row[each]) for each in names]
            rows.append([_safe(name), _safe(row["group"]), f"{row['rows']:,}", *figures])
        spread = [_number(_spread(groups.filter("compared")[each])) for each in names]
        rows.append([_safe(name), "<b>largest difference</b>", "", *spread])
    note = "<p><small>called: share that is called a one; pale: too few rows to be compared</small></p>"
    return _table(head, range(2, 8), rows, pale) + note


def _spread(values: pl.Series) -> float | None:
    known = values.drop_nulls().to_list()
    return max(known) - min(known) if known else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
