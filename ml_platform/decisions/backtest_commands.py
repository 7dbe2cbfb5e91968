"""`ml-platform backtest`."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ml_platform.resources.profiles import Profile
from ml_platform.stores.home import Home

if TYPE_CHECKING:
    from ml_platform.decisions.backtest import Backtest, Question, Told
    from ml_platform.decisions.backtest_history import History
    from ml_platform.spec import ModelSpec, Project

_WIDTH = 160  # of a table that goes into a file
_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.argument("model")
@click.option(
    "--from", "first", type=_DAY, help="First day that is replayed (default: the project's first of serving)."
)
@click.option("--to", "last", type=_DAY, help="Last day (default: the project's last of data).")
@click.option("--since", "parts", multiple=True, type=_DAY, help="Also judge the answers from this day on alone.")
@click.option("--gate/--no-gate", default=True, show_default=True, help="Judge versions as the model declares.")
@click.option("--lag", default=0, show_default=True, type=click.IntRange(0), help="Days from the gate to taking over.")
@click.option("--vary", multiple=True, metavar="FIELD=V,V", help="Other values of the policy's fields; spans in days.")
@click.option("--every", "timers", multiple=True, type=click.IntRange(1), help="A further timer, in days.")
@click.option("--skip", multiple=True, help="A policy to leave out; all but never and four-weekly can be.")
@click.option("--price", type=click.FloatRange(0), help="Of a retraining, in the unit of the first business metric.")
@click.option("--draws", default=20, show_default=True, type=click.IntRange(0), help="Of random times.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def backtest(
    model: str,
    first: datetime | None,
    last: datetime | None,
    parts: tuple[datetime, ...],
    gate: bool,
    lag: int,
    vary: tuple[str, ...],
    timers: tuple[int, ...],
    skip: tuple[str, ...],
    price: float | None,
    draws: int,
    json_path: Path | None,
    quiet: bool,
) -> None:
    """What the past would have been under other retraining policies: MODEL's loss, retrainings and what both cost.

    Never, weekly, four-weekly, on drift, as declared, at random times, and whatever --vary and --every add. Killed, the
    same command goes on with the versions that it had trained.
    """
    from ml_platform.decisions.backtest import Question, declared_for
    from ml_platform.decisions.backtest import backtest as carry_through
    from ml_platform.decisions.backtest_table import as_json
    from ml_platform.decisions.backtest_vary import varied
    from ml_platform.resources.projects import load_project
    from ml_platform.spec import DeclarationError

    profile = Profile.from_environment()
    Home(profile.home).prepare(profile.project)
    project = load_project(profile.project)
    spec = model_of(project, model)
    declared = declared_for(project, spec)
    if vary and declared.policy is None:
        raise DeclarationError(f"model {model} has no retraining policy, so --vary has nothing to vary; give it one")
    start, end = _date(first) or project.serves_from, _date(last) or project.ends or project.replay_until
    asked = Question(
        first=start,
        last=end,
        since=start,
        gated=gate,
        lag_days=lag,
        draws=draws,
        varied=varied(declared.policy, vary) if declared.policy else {},
        timers=timers,
        skipped=skip,
    )
    with Home(profile.home).used("backtest"), progress(quiet) as told:
        known = _history(profile, project, spec, asked, told)
        folder = profile.backtest_path
        found = carry_through(known, declared, asked, folder, threads=os.cpu_count() or 1, told=told)
    founds = [found, *(found.again(day.date()) for day in parts)]
    _show(founds, profile.reports_path, price)
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps([as_json(one, price) for one in founds], indent=2) + "\n")


def model_of(project: "Project", name: str) -> "ModelSpec":
    """The model of this name.

    Raises:
        UnknownName: there is none.
    """
    from ml_platform.spec import UnknownName

    if name not in project.models:
        raise UnknownName("model", name, project.models)
    return project.models[name]


def _date(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


def _history(profile: Profile, project: "Project", spec: "ModelSpec", asked: "Question", told: "Told") -> "History":
    from ml_platform.decisions.backtest_history import read_history
    from ml_platform.stores.delta import Lake

    told("every question's features, once", 0, 1)
    return read_history(project, spec, Lake(profile.lake, profile.storage_options), asked.last)


@contextmanager
def progress(quiet: bool) -> Iterator["Told"]:
    """A bar on a terminal, a line for each thing done elsewhere, nothing if ``quiet``."""
    if quiet or not sys.stderr.isatty():
        said: list[str] = []

        def say(doing: str, done: int, _: int) -> None:
            if not quiet and doing not in said:
                said.append(doing)
                click.echo(doing, err=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda doing, done, of: bar.update(task, description=doing, completed=done, total=of)


def _show(founds: "list[Backtest]", reports: Path, price: float | None) -> None:
    """The first one's picture; every one's table, also on the page."""
    from rich.console import Console
    from rich.table import Table

    from ml_platform.decisions.backtest_page import page
    from ml_platform.decisions.backtest_plot import picture
    from ml_platform.decisions.backtest_table import head, lines, sentences

    reports.mkdir(parents=True, exist_ok=True)
    model, png = founds[0].model, picture(founds[0])
    image, target = reports / f"backtest-{model}.png", reports / f"backtest-{model}.html"
    image.write_bytes(png)
    target.write_text(page(founds[0], png, price, founds[1:]))
    wide = None if sys.stdout.isatty() else _WIDTH
    for found in founds:
        table = Table(box=None, header_style="dim", padding=(0, 1))
        for number, title in enumerate(head(found, price)):
            table.add_column(title, justify="right" if number else "left")
        for line in lines(found, price):
            table.add_row(*line)
        Console(width=wide).print(table)
        for sentence in sentences(found):
            click.echo(sentence)
        click.echo("")
    click.echo(f"page: {target}, picture: {image}")
