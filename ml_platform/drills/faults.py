"""`ml-platform drill faults`: what can go wrong with data, tried at several dates; who notices it, and when?

It needs no state: the clean days are read from the sources and computed once, the faults are planted into copies.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

from ml_platform.drills.clean_year import CleanYear, clean_year
from ml_platform.drills.compared import Profiles
from ml_platform.drills.false_alarms import quiet_year
from ml_platform.drills.fault_drill import Told, drill
from ml_platform.drills.fault_page import late_line, sentences, table, write_page
from ml_platform.drills.fault_table import as_json, figures
from ml_platform.drills.planting import Plant
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_faults, load_project
from ml_platform.spec import DeclarationError, Fault, Project, UnknownName

Item = TypeVar("Item")
Track = Callable[[str], Callable[[Iterable[Item]], Iterable[Item]]]
_BEFORE = timedelta(days=28)  # after the first served day: less is too little to compare a day with
_AFTER = timedelta(days=14)  # before the last one: a fault lasts a week, and its labels come later


def dates(first: date, last: date, count: int, seed: int) -> list[date]:
    """So many days of [first, last], by chance, one from each of as many equal parts."""
    edges = np.linspace(0, (last - first).days + 1, count + 1)
    draw = np.random.default_rng(seed)
    return [
        first + timedelta(days=int(draw.integers(int(low), max(int(high), int(low) + 1))))
        for low, high in pairwise(edges)
    ]


def plants(faults: Iterable[Fault], days: Sequence[date], seed: int) -> list[Plant]:
    """Every fault at every date, date by date: what is known of a date is kept for the next fault."""
    each = list(faults)
    return [Plant(fault=fault, first=day, seed=seed) for day in days for fault in each]


def chosen(known: dict[str, Fault], only: Sequence[str]) -> list[Fault]:
    """The faults by these names, or all.

    Raises:
        UnknownName: there is no such fault.
    """
    for name in only:
        if name not in known:
            raise UnknownName("fault", name, known)
    return [fault for name, fault in known.items() if not only or name in only]


def answering(project: Project, service: str | None) -> str:
    """The service by this name, or the first one.

    Raises:
        UnknownName, DeclarationError: there is no such service, or none.
    """
    if not project.services:
        raise DeclarationError(f"project {project.name} has no service, so no answer could be wrong; add one")
    if service is not None and service not in project.services:
        raise UnknownName("service", service, project.services)
    return service or next(iter(project.services))


@contextmanager
def _progress(quiet: bool) -> Iterator[Track]:  # type: ignore[type-arg]
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=quiet or not sys.stderr.isatty()) as progress:
        yield lambda what: lambda items: progress.track(list(items), description=what)


def _until(project: Project) -> date:
    return project.ends or project.replay_until


def _year(project: Project, service: str, track: Track) -> CleanYear:  # type: ignore[type-arg]
    return clean_year(
        project,
        project.services[service],
        until=_until(project),
        threads=os.cpu_count() or 1,
        track=track("clean days, by month"),
    )


@click.command()
@click.argument("service", required=False)
@click.option("--only", multiple=True, metavar="FAULT", help="Not all faults; may be given several times.")
@click.option("--dates", "count", default=8, show_default=True, type=click.IntRange(1), help="At so many dates.")
@click.option("--seed", default=2013, show_default=True, help="Chooses the dates, and what faults choose by chance.")
@click.option("--clean/--no-clean", default=True, help="Look for false alarms on every clean day, too.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write everything there.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def faults(
    service: str | None, only: tuple[str, ...], count: int, seed: int, clean: bool, json_path: Path | None, quiet: bool
) -> None:
    """Plant each declared fault at several dates: who sees it first, when, and what would it have cost?

    No state is needed and none is changed. Exit code 1 if a fault was seen by nobody on one of its dates.
    """
    from rich.console import Console

    profile = Profile.from_environment()
    project = load_project(profile.project)
    known = load_faults(profile.project)
    if not known:
        raise DeclarationError(f"{profile.project} declares no fault; write one in {profile.project}.faults")
    wanted, asked = chosen(known, only), answering(project, service)
    with _progress(quiet) as track:
        year = _year(project, asked, track)
        profiles, first, last = Profiles(year=year), project.serves_from, year.last
        days = dates(first + _BEFORE, last - _AFTER, count, seed)
        told: list[Told] = []
        for plant in track("faults")(plants(wanted, days, seed)):
            told.append(drill(profiles, plant))
            if told[-1].late:
                click.echo(late_line(told[-1]))
        calm = quiet_year(profiles, first, last - timedelta(days=1), track("clean days")) if clean else None
    business = list(dict.fromkeys(name for one in told if one.cost_of_week for name in one.cost_of_week.business))
    Console(width=None if sys.stdout.isatty() else 180).print(table(told, business))
    click.echo("\n".join(sentences(told, calm)))
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(as_json(told, calm), indent=2) + "\n")
    click.echo(f"page: {write_page(told, calm, business, profile.reports_path / 'drill-faults.html')}")
    if figures(told).unseen:
        raise click.exceptions.Exit(1)
