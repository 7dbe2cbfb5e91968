"""`ml-platform ...`: a thin face over the same functions that the assets call."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import click

from ml_platform.bench.commands import bench
from ml_platform.decisions.backtest_commands import backtest
from ml_platform.decisions.commands import COMMANDS as DECISIONS
from ml_platform.drills.commands import drill
from ml_platform.evaluation.commands import explain
from ml_platform.features.backfill import Backfill, Piece, summary
from ml_platform.monitoring.commands import COMMANDS as MONITORING
from ml_platform.resources.profiles import DAGSTER_PORT, DAGSTER_UI, MLFLOW_PORT, MLFLOW_UI, Profile, pages_on
from ml_platform.serving import commands
from ml_platform.serving.bring_back import bring_back
from ml_platform.serving.dead_letters import dead_letters
from ml_platform.serving.image_commands import image
from ml_platform.serving.key_commands import COMMANDS as KEYS
from ml_platform.serving.rollout_commands import COMMANDS as ROLLOUTS
from ml_platform.serving.serve_command import serve
from ml_platform.sources.commands import contract
from ml_platform.spec import PlatformError, Project
from ml_platform.stores.home import Home

_INTERRUPTED = 130  # what shells say of a command that Ctrl-C ended


class _Commands(click.Group):
    """Platform errors end with their sentence and exit code 1, not with a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except PlatformError as error:
            click.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
            ctx.exit(1)


class _Day(click.ParamType[date]):
    name = "YYYY-MM-DD"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a date like 2013-05-31", param, ctx)


class _EntityValue(click.ParamType[str]):
    name = "ENTITY=VALUE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        entity, equals, text = str(value).partition("=")
        if not (entity and equals and text):
            self.fail(f"{value!r} is not written as <entity>=<value>, such as tailnum=N784JB", param, ctx)
        return str(value)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="ml-platform")
def main() -> None:
    """Everything is a Dagster asset; state lies in ML_PLATFORM_HOME (default ./.ml_platform)."""


@main.command()
@click.option("--until", type=_Day(), help="Last day to replay (default: the project's).")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the summary there.")
@click.option("--quiet", is_flag=True, help="No live display.")
def run(until: date | None, json_path: Path | None, quiet: bool) -> None:
    """The main job: bootstrap, serve, replay real days, retrain on evidence. Goes on where it was stopped."""
    from ml_platform.replay.state import what_next

    profile = Profile.from_environment()
    try:
        _replay(profile, until, json_path, quiet)
    except KeyboardInterrupt:
        click.secho(f"interrupted; the same command {what_next(profile.home)}", fg="yellow", err=True)
        sys.exit(_INTERRUPTED)


def _replay(profile: Profile, until: date | None, json_path: Path | None, quiet: bool) -> None:
    from ml_platform.replay.display import display, show
    from ml_platform.replay.driver import Replay
    from ml_platform.replay.page import write_page
    from ml_platform.stores.delta import Lake
    from ml_platform.stores.ledger import Ledger

    with display(quiet) as listener:
        replay = Replay(profile, listener)
        summary = replay.run(until or replay.project.replay_until)
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(summary.as_json(), indent=2) + "\n")
    lake = Lake(profile.lake, profile.storage_options)
    policy = replay.project.models[replay.service.model].policy
    page = write_page(summary, lake, Ledger(profile.ledger_path), policy, profile.reports_path / "replay.html")
    show(summary, page)


@main.command()
@click.option("--port", default=DAGSTER_PORT, show_default=True)
@click.option("--mlflow-port", default=MLFLOW_PORT, show_default=True, help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--gives-way", is_flag=True, help="Work only where a core is idle: beside a service on one machine.")
def ui(port: int, mlflow_port: int, host: str, gives_way: bool) -> None:
    """Open Dagster's UI with its daemon on the same state, and MLflow's where it has no server of its own."""
    from ml_platform.automation.instance import write_dagster_yaml
    from ml_platform.resources.production import bucket_of
    from ml_platform.serving.mlflow_ui import start_mlflow_ui
    from ml_platform.serving.priority import give_way
    from ml_platform.stores.clock import Clock

    if gives_way:
        give_way()  # and with it whatever it starts
    profile = Profile.from_environment()
    home = Home(profile.home)
    home.prepare(profile.project)
    profile.dagster_home.mkdir(parents=True, exist_ok=True)
    write_dagster_yaml(
        profile.dagster_home,
        replayed=Clock(profile.clock_path).replayed() is not None,
        postgres_url=profile.dagster_storage,
        s3_bucket=bucket_of(profile),
    )
    environment = {**os.environ, "DAGSTER_HOME": str(profile.dagster_home), "ML_PLATFORM_HOME": str(profile.home)}
    if not profile.mlflow_uri.startswith("http"):  # a server shows its own pages
        shown = pages_on(port, start_mlflow_ui(profile, host, mlflow_port), host)
        # What is made from this UI links to where the two are now, unless a setting says where people find them.
        environment = {DAGSTER_UI: shown.dagster, MLFLOW_UI: shown.mlflow, **environment}
        click.echo(f"MLflow on {shown.mlflow}")
    click.echo(f"Dagster on http://{host}:{port}, state in {profile.home}; Ctrl-C ends both")
    command = [sys.executable, "-m", "dagster", "dev", "-m", "ml_platform.definitions", "-h", host, "-p", str(port)]
    with home.used("ui", beyond_exec=True):
        os.execve(sys.executable, command, environment)  # so that a signal to this process ends Dagster's, too


@main.command()
@click.argument("table")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--batch", default=500, show_default=True, type=click.IntRange(1), help="Rows at once; 1: one by one.")
def ingest(table: str, file: BinaryIO, batch: int) -> None:
    """Apply events to the live features: rows of TABLE, one JSON object a line, from FILE or standard input.

    In the production profile they go onto the stream, and `ml-platform consume` applies them. Ends with code 1 when a
    row was refused or set aside; the others count all the same.
    """
    from ml_platform.serving.feed import feed

    profile = Profile.from_environment()
    home = Home(profile.home)
    home.prepare(profile.project)
    with home.used("ingest"):
        fed = feed(profile, table, file, batch, told=click.echo)
    click.echo(fed.sentence)
    if fed.left_out:
        sys.exit(1)


@main.command()
@click.option("--batch", default=500, show_default=True, type=click.IntRange(1), help="Messages at once, at most.")
def consume(batch: int) -> None:
    """Apply the stream's events to the live features until it is told to end (production profile)."""
    from ml_platform.serving.consumer import consume as consume_until_told

    profile = Profile.from_environment()
    home = Home(profile.home)
    home.prepare(profile.project)
    with home.used("consume"):
        consume_until_told(profile, batch, told=click.echo)


@main.command()
@click.argument("entity", type=_EntityValue())
@click.option("--yes", is_flag=True, help="Remove it; without, only what holds it is listed.")
def forget(entity: str, yes: bool) -> None:
    """List, and with --yes remove, all that holds ENTITY=VALUE (tailnum=N784JB), and mark the models trained on it.

    Stop the service and Dagster first. Killed, the same command ends it. Ends with code 1 if something remains.
    """
    from ml_platform.forgetting.command import forget as forget_or_list

    sys.exit(forget_or_list(Profile.from_environment(), entity, remove=yes, told=click.echo))


@main.command("feast-apply")
def feast_apply() -> None:
    """Register all feature views in Feast (`feast apply` on the project's repository)."""
    from ml_platform.features.registry import apply
    from ml_platform.resources.projects import load_project

    profile = Profile.from_environment()
    click.echo(apply(load_project(profile.project), profile))


@main.command()
@click.argument("views", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every view of the project.")
@click.option("--from", "first", type=_Day(), help="First day (default: the first that the raw tables hold).")
@click.option("--to", "last", type=_Day(), help="Last day (default: the last closed one that the raw tables hold).")
@click.option("--after-correction", "corrected", type=_Day(), help="Instead: all days that look back on this raw day.")
@click.option("--table", "tables", multiple=True, help="With --after-correction: the raw table that was corrected.")
@click.option("--again", is_flag=True, help="Also what is finished; after a kill go on without it.")
def backfill(
    views: tuple[str, ...],
    every: bool,
    first: date | None,
    last: date | None,
    corrected: date | None,
    tables: tuple[str, ...],
    again: bool,
) -> None:
    """Make feature VIEWS anew from the raw tables, a month at a time. Goes on where it was stopped.

    What is finished is done again only if the view's declaration or raw days that it is computed from changed since.
    """
    if every and views:
        raise click.UsageError("give VIEWS or --all, and not both")
    if corrected is None and not (every or views):
        raise click.UsageError("give VIEWS, --all, or --after-correction DAY")
    if corrected is not None and (first or last):
        raise click.UsageError("--after-correction finds the days itself; leave out --from and --to")
    if tables and corrected is None:
        raise click.UsageError("--table says which table --after-correction is about; give that, too")

    def plan(work: Backfill) -> list[Piece]:
        if corrected is not None:
            return work.plan_after_correction(corrected, views, tables, again=again)
        return work.plan(views or list(work.project.views), first, last, again=again)

    try:
        _backfill(Profile.from_environment(), plan)
    except KeyboardInterrupt:
        click.secho("interrupted; the same command (without --again) goes on with that piece", fg="yellow", err=True)
        sys.exit(_INTERRUPTED)


def _backfill(profile: Profile, plan: Callable[[Backfill], list[Piece]]) -> None:
    from rich.progress import track

    from ml_platform.automation.made import reporter
    from ml_platform.features.refresh import GRID
    from ml_platform.resources.bound import bound
    from ml_platform.resources.projects import load_project
    from ml_platform.stores.clock import Clock

    home, clock = Home(profile.home), Clock(profile.clock_path)
    home.prepare(profile.project)
    project = load_project(profile.project)
    with home.locked("backfill"), reporter(profile.dagster_home, replayed=clock.replayed() is not None) as report:
        stores: Any = bound(profile, project)
        work = Backfill(
            project=project,
            lake=stores["lake"],
            online=stores["online"],
            tiles=stores["tiles"],
            record=profile.home / "backfill",
            grid=GRID,
            now=clock.now(),
        )
        pieces = plan(work)
        for piece in track(pieces, description="backfill", transient=True, disable=not sys.stdout.isatty()):
            made = work.make(piece)
            report(piece.view.name, piece.days, {"rows_of_piece": made.rows})
            work.finish(piece)
            click.echo(f"{piece}: {made.rows:,} rows")
    click.echo(summary(pieces))


@main.command()
@click.argument("address", required=False)
@click.option("--changed", is_flag=True, help="Which features differ from what live models were trained on.")
def impact(address: str | None, changed: bool) -> None:
    """What depends on ADDRESS: raw/TABLE, raw/TABLE.COLUMN, features/VIEW or features/VIEW.FEATURE.

    With --changed instead: exit code 1 if a service's champion was trained on features that are declared otherwise now.
    """
    from ml_platform.resources.projects import load_project
    from ml_platform.spec.impact import impact as impact_of

    if changed == (address is not None):
        raise click.UsageError("give an ADDRESS such as raw/weather.temp, or --changed, and not both")
    profile = Profile.from_environment()
    project = load_project(profile.project)
    if address is not None:
        click.echo("\n".join(impact_of(project, address).lines()))
        return
    sys.exit(_changed(profile, project))


def _changed(profile: Profile, project: Project) -> int:
    from ml_platform.serving.agreement import agreements, lines
    from ml_platform.stores.tracking import Tracking

    Home(profile.home).prepare(profile.project)
    verdicts = agreements(project, Tracking(profile.mlflow_uri, profile.mlflow_artifacts))
    click.echo("\n".join(lines(verdicts)) if verdicts else f"project {project.name} has no service")
    return int(any(verdict.state == "fail" for verdict in verdicts.values()))


@main.command()
@click.argument("model")
@click.argument("version", type=click.IntRange(1), required=False)
@click.option("--json", "as_json", is_flag=True, help="The answers as JSON, one a line.")
def reproduce(model: str, version: int | None, as_json: bool) -> None:
    """Make VERSION of MODEL (every version, if none is given) again from its run manifest, from the raw tables on.

    Exit code 0 if all come out identical (in their bits, or in their measures), 1 if one does not or cannot be made.
    """
    from ml_platform.resources.projects import load_project
    from ml_platform.stores.delta import Lake
    from ml_platform.stores.tracking import Tracking
    from ml_platform.training.reproduce import reproduce as make_again
    from ml_platform.training.workers import Site

    profile = Profile.from_environment()
    Home(profile.home).prepare(profile.project)
    lake = Lake(profile.lake, profile.storage_options)
    tracking = Tracking(profile.mlflow_uri, profile.mlflow_artifacts)
    project, succeeded, site = load_project(profile.project), True, Site(ray_address=profile.ray_address)
    for number in [version] if version else [found.version for found in tracking.versions(model)]:
        with TemporaryDirectory() as scratch:
            found = make_again(lake, tracking, project, profile.project, model, number, Path(scratch), site)
        succeeded = succeeded and found.succeeded
        if as_json:
            click.echo(json.dumps({"model": model, "version": number, **asdict(found)}))
            continue
        click.echo("\n  ".join([f"{model} version {number}: {found.sentence()}", *found.notes]))
    sys.exit(int(not succeeded))


@main.command()
@click.argument("tables", nargs=-1)
@click.option("--older-than", default=168, show_default=True, type=click.IntRange(0), help="Hours.")
@click.option("--optimize", is_flag=True, help="Put the small files of each day together before.")
def vacuum(tables: tuple[str, ...], older_than: int, optimize: bool) -> None:
    """Remove the files of old table versions (of TABLES, or of all), but none that a registered model was made of."""
    from ml_platform.resources.projects import load_project
    from ml_platform.stores.delta import Lake
    from ml_platform.stores.tracking import Tracking
    from ml_platform.training.upkeep import keep_up

    profile = Profile.from_environment()
    home = Home(profile.home)
    home.prepare(profile.project)
    lake = Lake(profile.lake, profile.storage_options)
    tracking = Tracking(profile.mlflow_uri, profile.mlflow_artifacts)
    project, age = load_project(profile.project), timedelta(hours=older_than)
    with home.locked("vacuum"):
        done = list(keep_up(lake, tracking, project, tables, older_than=age, merge=optimize))
    for one in done:
        if one.merged or one.removed or tables:
            click.echo(one.sentence())
    click.echo(f"{len(done)} tables, {sum(one.removed for one in done)} files removed")


for command in (commands.approve, commands.reject, commands.adopt, commands.history, *ROLLOUTS):
    main.add_command(command)
for command in (backtest, serve, bring_back, contract, dead_letters, explain, bench, drill, image):
    main.add_command(command)
for command in (*KEYS, *DECISIONS, *MONITORING):
    main.add_command(command)


if __name__ == "__main__":
    main()
