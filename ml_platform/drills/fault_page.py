"""The drill of faults for people: a table in the terminal, and a page."""

import html
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ml_platform.drills.false_alarms import Quiet
from ml_platform.drills.fault_drill import Told
from ml_platform.drills.fault_table import AIM, Figures, Line, figures, lines
from ml_platform.drills.watch import DETECTORS, PERFORMANCE

_STYLE = (
    "body{font:14px/1.45 system-ui,sans-serif;max-width:1250px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ddd;padding:.3em .7em;text-align:left;"
    "vertical-align:top}td.n{text-align:right;white-space:nowrap}td.name{white-space:nowrap}tr.bad{background:#fdecea}"
    "small{color:#666}summary{cursor:pointer}"
)
_SHOWN = 160  # letters of a sentence in the table; the rest stands below it


def table(told: Sequence[Told], business: Sequence[str]) -> Table:
    """One line a fault."""
    shown = Table(title="Planted faults: who saw them first, when, and what a week of them would have cost")
    for name in ("fault", "planted into", "due", "day one", "first seen by"):
        shown.add_column(name, no_wrap=name in ("fault", "day one"))
    for name in ("latest", "answers changed", "AUC", "log-loss", *business):
        shown.add_column(name, justify="right")
    for line in lines(told):
        shown.add_row(*_cells(line, business), style="red" if line.missed else None)
    return shown


def _cells(line: Line, business: Sequence[str]) -> list[str]:
    fault = line.fault
    columns = ", ".join(fault.columns[:2]) + (", ..." if len(fault.columns) > 2 else "")
    where = (f"{fault.table}.{columns}" if columns else fault.table) if fault.table else columns
    first = ", ".join(f"{name} {count}" for name, count in line.first_by.items())
    latest = "never" if line.latest is None else f"day {line.latest + 1}"
    costs = [_signed(line.mean_cost("auc"), 4), _signed(line.mean_cost("log_loss"), 4)]
    costs += [_signed(line.mean_cost(name), 0) for name in business]
    changed = line.mean_cost("changed")
    return [
        fault.name,
        where,
        fault.due,
        f"{line.on_day_one} of {len(line.told)}",
        first,
        latest,
        "" if changed is None else f"{changed:.0%}",
        *costs,
    ]


def _signed(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:+.{digits}f}"


def late_line(told: Told) -> str:
    """Of a fault that was not seen on its first day, in a line."""
    plant, first = told.plant, told.first
    seen = f"first seen by {first.detector} on day {first.day + 1}" if first else "seen by nobody"
    return f"  {plant.fault.name} from {plant.first} on: {seen}"


def sentences(told: Sequence[Told], quiet: Quiet | None) -> list[str]:
    """The figures in words."""
    found = figures(told)
    words = [
        f"{found.kinds_seen} of {found.kinds} classes of faults were seen on every date "
        f"({found.plants - len(found.unseen)} of {found.plants} plants)",
        f"of {found.due_early} plants that a contract or a deadline could see {found.seen_early} were seen on day one: "
        f"{found.share_early:.1%} (aim {AIM:.0%})",
        _by_performance(found),
    ]
    unseen: dict[str, list[str]] = {}
    for name, day in found.unseen:
        unseen.setdefault(name, []).append(day)
    words += [f"nobody saw {name} from {', '.join(days)} on" for name, days in unseen.items()]
    return words + ([] if quiet is None else _quiet_sentences(quiet))


def _by_performance(found: Figures) -> str:
    if not found.by_performance:
        return "none of them was first seen by performance"
    listed = ", ".join(f"{name} ({day})" for name, day in found.by_performance)
    return f"{len(found.by_performance)} of them were first seen by performance, days late: {listed}"


def _quiet_sentences(quiet: Quiet) -> list[str]:
    words = [f"the clean days from {quiet.first} to {quiet.last}, {quiet.weeks:.1f} weeks:"]
    for name in DETECTORS:
        if name == PERFORMANCE and name in quiet.looks:
            asked = f"{len(quiet.of(name))} of {quiet.looks[name]} days"
            words.append(f"  {name}: late labels asked for another champion on {asked}: seasons, no false alarms")
        elif name in quiet.looks:
            alarms = quiet.of(name)
            days = ", ".join(dict.fromkeys(f"{alarm.where} {alarm.day:%d %b}" for alarm in alarms[:6]))
            more = f" ({days}{', ...' if len(alarms) > 6 else ''})" if alarms else ""
            words.append(
                f"  {name}: {len(alarms)} false alarms in {quiet.looks[name]:,} looks, {quiet.a_week(name):.2f} a week"
                f"{more}"
            )
    return words


def write_page(told: Sequence[Told], quiet: Quiet | None, business: Sequence[str], target: Path) -> Path:
    """The same with every sentence of every alarm; returns its path."""
    heads = ["fault", "planted into", "due", "day one", "first seen by", "latest", "answers changed", "AUC", "log-loss"]
    rows = [_row(line, business) for line in lines(told)]
    columns = "".join(f"<th>{html.escape(name)}</th>" for name in [*heads, *business])
    body = [
        "<h1>Drill of faults</h1>",
        f"<ul>{''.join(f'<li>{html.escape(one)}</li>' for one in sentences(told, quiet))}</ul>",
        f"<p>{html.escape(_HOW)}</p>",
        f"<table><tr>{columns}</tr>{''.join(rows)}</table>",
        "<h2>Every date</h2>",
        *map(_dates, lines(told)),
        "" if quiet is None else _alarms(quiet),
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Drill of faults</title><style>{_STYLE}</style>"
        f"{''.join(body)}"
    )
    return target


_HOW = (
    "Day one is the day on which the fault begins, as it is judged when it is closed. What a week would have cost is "
    "the difference between the champion's answers on wrong and on right features, had nobody looked: negative AUC and "
    "positive log-loss are worse; a leak of the future may look like a gain. Business metrics are summed over the week."
)


def _row(line: Line, business: Sequence[str]) -> str:
    cells = _cells(line, business)
    text = "".join(
        f"<td class={'n' if place > 4 else 'name' if not place else 't'}>{html.escape(cell)}</td>"
        for place, cell in enumerate(cells)
    )
    told = line.sentence[:_SHOWN] + ("..." if len(line.sentence) > _SHOWN else "")
    note = html.escape(f"{line.fault.description} {told}")
    note = f"<tr><td></td><td colspan={len(cells) - 1}><small>{note}</small></td></tr>"
    return f"<tr{' class=bad' if line.missed else ''}>{text}</tr>{note}"


def _dates(line: Line) -> str:
    items = []
    for one in line.told:
        said = "".join(
            f"<br><b>{catch.detector}</b>, day {catch.day + 1}: {html.escape(catch.reason)}" for catch in one.catches
        )
        items.append(f"<li>{one.plant.first}: {said or 'nobody saw it'}</li>")
    fault = line.fault
    head = f"{fault.name}: {fault.description} A catch on day one is: {fault.caught}."
    return f"<details><summary>{html.escape(head)}</summary><ul>{''.join(items)}</ul></details>"


def _alarms(quiet: Quiet) -> str:
    rows = "".join(
        f"<tr><td>{alarm.day}</td><td>{alarm.detector}</td><td>{html.escape(alarm.where)}</td>"
        f"<td>{html.escape(alarm.reason)}</td></tr>"
        for alarm in quiet.alarms
    )
    return f"<h2>False alarms of the clean days</h2><table>{rows or '<tr><td>none</td></tr>'}</table>"
