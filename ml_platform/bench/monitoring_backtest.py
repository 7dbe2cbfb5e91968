"""Does the declared retraining policy pay? The project's year, and the same policy on a stream with a known change."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median

from ml_platform.bench.backtest_stream import BAD_WEEK, CHANGES_ON, ENDS, SEED, SERVES_FROM, stream
from ml_platform.decisions.backtest import TIMER, Backtest, Declared, Question, backtest, declared_for
from ml_platform.decisions.backtest_history import read_history
from ml_platform.decisions.backtest_policies import DECLARED, DRIFT
from ml_platform.decisions.backtest_table import head, lines, sentences
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.spec import DeclarationError, Project
from ml_platform.stores.delta import Lake
from ml_platform.stores.home import Home

_SEEDS = 5  # of streams that never change, and of those that do
_CHOSEN_UNTIL = (8, 1)  # month and day: the policy's thresholds were chosen on what lies before
Echo = Callable[[str], object]


def measure(*, quick: bool, echo: Echo) -> None:
    """Print both; ``quick``: one month of the project, one stream."""
    profile = Profile.from_environment()
    Home(profile.home).prepare(profile.project)
    project, threads = load_project(profile.project), os.cpu_count() or 1
    with Home(profile.home).used("bench monitoring"):
        _year(project, Lake(profile.lake, profile.storage_options), profile.backtest_path, threads, quick, echo)
        _streams(project, profile.backtest_path, threads, quick, echo)


def _year(project: Project, lake: Lake, folder: Path, threads: int, quick: bool, echo: Echo) -> None:
    """The whole year, and its part after the thresholds were chosen."""
    spec = next((one for one in project.models.values() if one.policy), None)
    if spec is None:
        raise DeclarationError(f"project {project.name} has no model with a retraining policy; name one in a model")
    first = project.serves_from
    last = first.replace(month=first.month + 1) if quick else project.ends or project.replay_until
    asked = Question(first=first, last=last, since=first, skipped=(DRIFT,) if quick else ())
    known, declared = read_history(project, spec, lake, last), declared_for(project, spec)
    found = backtest(known, declared, asked, folder, threads=threads)
    _print(found, echo)
    since = date(first.year, *_CHOSEN_UNTIL)
    if first < since < last:
        _print(found.again(since), echo)


def _streams(project: Project, folder: Path, threads: int, quick: bool, echo: Echo) -> None:
    """The project's first policy, untouched, where it is known when a retraining pays."""
    policy = next(iter(project.retrain_policies.values()))
    declared = Declared(policy=replace(policy, triggers=()), drifts={}, metrics={})
    asked = Question(first=SERVES_FROM, last=ENDS, since=SERVES_FROM)
    seeds = [SEED + number for number in range(1 if quick else _SEEDS)]
    found = [backtest(stream(seed), declared, asked, folder, threads=threads) for seed in seeds]
    echo(f"\nA stream that changes for good on {CHANGES_ON} (a bad week from {BAD_WEEK} on), seed {SEED}")
    _print(found[0], echo)
    still = [stream(seed, changes_on=None) for seed in seeds]
    alone = replace(asked, skipped=("weekly",), draws=0)
    quiet = [backtest(one, declared, alone, folder, threads=threads) for one in still]
    echo(f"\n{len(seeds)} seeds: days from the change to the first retraining after it, and retrainings before it")
    echo(f"  {[delay_of(one) for one in found]}, {[before(one) for one in found]}")
    gains = [one.of(DECLARED).against[TIMER].value for one in found]  # type: ignore[union-attr]
    echo(f"  better than the {TIMER} timer by {median(gains):+.4f} (median; {min(gains):+.4f} to {max(gains):+.4f})")
    counts = [len(one.of(DECLARED).retrainings) for one in quiet]  # type: ignore[union-attr]
    echo(f"  the same seeds without a change: {counts} retrainings in {(ENDS - SERVES_FROM).days} days")


def delay_of(found: Backtest) -> int | None:
    """Days from the change to the first version trained after it; None: there was none."""
    days = [one.day for one in found.policies[DECLARED].retrainings if one.day >= CHANGES_ON]
    return (days[0] - CHANGES_ON).days if days else None


def before(found: Backtest) -> int:
    """How many retrainings the declared policy made before the change."""
    return sum(one.day < CHANGES_ON for one in found.policies[DECLARED].retrainings)


def _print(found: Backtest, echo: Echo) -> None:
    rows = [head(found, None), *lines(found, None)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    echo("")
    for row in rows:
        cells = zip(row, widths, strict=True)
        echo(
            "  ".join(f"{cell:>{width}}" if place else f"{cell:<{width}}" for place, (cell, width) in enumerate(cells))
        )
    for sentence in sentences(found):
        echo(sentence)
