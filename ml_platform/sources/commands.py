"""`ml-platform contract ...`: a contract as a suite file of Great Expectations, back, and its page."""

import json
from datetime import date
from pathlib import Path

import click

from ml_platform.resources.profiles import Profile
from ml_platform.spec import MissingHistory, SourceTable, UnknownName
from ml_platform.stores.delta import Lake


@click.group()
def contract() -> None:
    """Contracts of source tables: to and from Great Expectations, and what they find."""


@contract.command()
@click.argument("table")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def export(table: str, file: Path) -> None:
    """Write TABLE's contract to FILE, a suite that Great Expectations reads."""
    from ml_platform.sources.suites import as_suite

    found = _table(Profile.from_environment(), table)
    suite = as_suite(found)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(suite, indent=2) + "\n")
    ours = len(found.rules) - len(suite["expectations"])
    click.echo(
        f"{len(suite['expectations'])} expectations in {file}" + (f", {ours} of our own in its meta" if ours else "")
    )


@contract.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def import_(file: Path) -> None:
    """Print the suite in FILE as Python for a table's file; ends with code 1 if something cannot be expressed."""
    from ml_platform.sources.suite_source import declaration
    from ml_platform.sources.suites import read_suite

    found = read_suite(file.read_text())
    click.echo(declaration(found), nl=False)
    if found.left_out:
        raise SystemExit(1)


@contract.command()
@click.argument("table")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Which day; by default the last in the lake.")
@click.option("--to", "target", type=click.Path(path_type=Path, dir_okay=False), help="Where the page goes.")
def docs(table: str, day: date | None, target: Path | None) -> None:
    """Great Expectations' Data Docs about TABLE: every expectation and what it finds in a day of the source."""
    from ml_platform.resources.projects import load_project
    from ml_platform.sources.admission import Admission
    from ml_platform.sources.contract_docs import write_docs
    from ml_platform.sources.contract_results import as_results
    from ml_platform.sources.ingest import examined
    from ml_platform.stores.clock import Clock
    from ml_platform.stores.forgotten import forgotten_in

    profile = Profile.from_environment()
    found, project = _table(profile, table), load_project(profile.project)
    lake, now = Lake(profile.lake, profile.storage_options), Clock(profile.clock_path).now()
    chosen = date(day.year, day.month, day.day) if day else _last_day(found, lake)
    admit = Admission(project, forgotten_in(profile.home))
    rows, judged = examined(found, lake, chosen, now, project.timezone, admit=admit)
    run = str(chosen) if found.partitioned else "whole"
    results = as_results(found, rows, judged, run, now)
    page = write_docs(results, target or profile.reports_path / "contracts" / f"{found.name}.html")
    click.echo(
        f"{results['successful']} of {results['evaluated']} expectations met on {rows.height} rows ({run}): {page}"
    )


def _last_day(table: SourceTable, lake: Lake) -> date:
    if not table.partitioned:
        return date.min
    days = lake.days(f"raw/{table.name}")
    if not days:
        raise MissingHistory(f"raw/{table.name} holds no day yet; run the platform first, or name one with --day")
    return max(days)


def _table(profile: Profile, name: str) -> SourceTable:
    from ml_platform.resources.projects import load_project

    tables = load_project(profile.project).tables
    if name not in tables:
        raise UnknownName("source table", name, tables)
    return tables[name]
