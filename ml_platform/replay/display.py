"""What a person sees while a replay runs and when it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ml_platform.replay.driver import Listener, Progress
from ml_platform.replay.page import headline
from ml_platform.replay.summary import Summary


@contextmanager
def display(quiet: bool) -> Iterator[Listener]:
    """A live display on a terminal, a line a day elsewhere, nothing if ``quiet``."""
    console = Console()
    if quiet:
        yield lambda _: None
    elif console.is_terminal:
        began = time.monotonic()
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield lambda progress: live.update(_panel(progress, time.monotonic() - began))
    else:
        yield _Lines(console)


class _Lines:
    """One line for each thing done in the bootstrap and for each closed day."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        summary = progress.summary
        closed = f"{summary.last_day}" if summary else progress.doing
        if closed and closed != self._last:
            self._last = closed
            self._console.print(_sentence(progress) if summary else progress.doing, highlight=False, soft_wrap=True)


def _sentence(progress: Progress) -> str:
    summary = progress.summary
    if summary is None:
        return progress.doing
    auc = "-" if summary.auc is None else f"{summary.auc:.4f}"
    return (
        f"{summary.last_day}: {summary.predictions:,} predictions, {summary.judged:,} judged, AUC so far {auc}, "
        f"retrainings {len(summary.retrainings)}, champion version {summary.champion}, "
        f"values that differ {summary.values_mismatched}"
    )


def _panel(progress: Progress, seconds: float) -> Group:
    rows = Table.grid(padding=(0, 2))
    for name, value in _shown(progress, seconds):
        rows.add_row(Text(name, style="dim"), value)
    done = progress.summary.days if progress.summary else 0
    total = max((progress.last - progress.now).days + done, 1)
    return Group(rows, ProgressBar(total=total, completed=done, width=60))


def _shown(progress: Progress, seconds: float) -> list[tuple[str, str]]:
    shown = [
        ("replayed time", f"{progress.now:%Y-%m-%d %H:%M} UTC, until {progress.last:%Y-%m-%d %H:%M}"),
        ("doing", progress.doing),
        ("since started", f"{seconds:,.0f} s"),
        ("sent", f"{progress.predictions:,} questions, {progress.labels:,} truths"),
    ]
    summary = progress.summary
    if summary:
        auc = "no labels yet" if summary.auc is None else f"{summary.auc:.4f}"
        shown += [
            ("closed days", f"{summary.days} until {summary.last_day}"),
            ("AUC so far", auc),
            (
                "retrainings",
                f"{len(summary.retrainings)}; {summary.retrainings[-1].reason}" if summary.retrainings else "0",
            ),
            ("champion", f"version {summary.champion}"),
            *([("rollout", summary.rollouts[-1].reason)] if summary.rollouts else []),
            ("values that differ", f"{summary.values_mismatched} of {summary.values_compared:,}"),
        ]
    return shown


def show(summary: Summary, page: Path) -> None:
    """The closing table, every retraining and promotion with its reason, and where the page is."""
    console = Console()
    table = Table(show_header=False)
    for name, value in headline(summary):
        table.add_row(name, value)
    console.print(table)
    for title, events in (
        ("retrained", summary.retrainings),
        ("promoted", summary.promotions),
        ("refused", summary.refusals),
    ):
        for event in events:
            console.print(
                f"{event.date} {title} version {event.version}: {event.reason}", highlight=False, soft_wrap=True
            )
    for failed in summary.failures:
        what = f"{failed.step} of {failed.partition}" if failed.partition else failed.step
        reason = (failed.reason.splitlines() or [""])[0]
        console.print(f"{failed.date} failed {what}: {reason}", style="red", highlight=False, soft_wrap=True)
    console.print(f"page: {page}", highlight=False, soft_wrap=True)
