"""`ml-platform metrics` and `ml-platform alerts`: numbers for Prometheus, messages for people."""

import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home
from ml_platform.stores.outbox import Kept, Outbox

METRICS_PORT = 9109


@click.command()
@click.option("--port", default=METRICS_PORT, show_default=True, help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Whoever reaches it reads it.")
def metrics(port: int, host: str) -> None:
    """Serve the platform's metrics for Prometheus on /metrics: incidents, ages, verdicts, decisions, rollouts.

    It reads the state folder when it is asked and writes nothing: end it and start it again as you like.
    """
    from ml_platform.monitoring.exporter import exporter
    from ml_platform.monitoring.metrics_server import metrics_server

    profile = Profile.from_environment()
    if Home(profile.home).is_made:
        Home(profile.home).check(profile.project)
    server = metrics_server(exporter(profile, load_project(profile.project)), host, port)
    click.echo(f"metrics of {profile.home} on http://{host}:{server.server_port}/metrics; Ctrl-C ends it")
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


@click.group()
def alerts() -> None:
    """What people are told of incidents, and what Alertmanager and Grafana need to know of this project."""


@alerts.command()
def send() -> None:
    """Note what people are to be told and send what is due, as the daemon's sensor does; for a cron job, say.

    Exit code 1 if a channel took nothing of what is due: it is tried again later.
    """
    from ml_platform.monitoring.telling import tell_people

    profile = Profile.from_environment()
    Home(profile.home).prepare(profile.project)
    found = tell_people(profile, load_project(profile.project))
    if found is None:
        click.echo("no channel is set up: set ML_PLATFORM_ALERTS_WEBHOOK, or ..._SMTP with ..._FROM and ..._TO")
        return
    click.echo(found.sentence)
    sys.exit(int(bool(found.problems)))


@alerts.command()
def status() -> None:
    """Every message that was noted: on which channel, whether it was taken, and what keeps it from being."""
    profile = Profile.from_environment()
    messages = Outbox(profile.outbox_path).messages()
    if not messages:
        click.echo("nobody was ever to be told of anything")
    for kept in messages:
        click.echo(_line(kept))


@alerts.command()
def test() -> None:
    """Send a message to every channel that is set up, as an incident would be told of; nothing of it is kept."""
    from ml_platform.monitoring.notify import send_now
    from ml_platform.spec.alerts import Alert

    profile = Profile.from_environment()
    now = Clock.wall()
    sentence = "This is a test of the channels: nothing is wrong. Nobody has to do anything."
    alert = Alert(
        id=f"test/{now.isoformat()}", name="test", place="test", severity="warn", sentence=sentence, began=now.date()
    )
    if not profile.channels.names:
        click.echo("no channel is set up: set ML_PLATFORM_ALERTS_WEBHOOK, or ..._SMTP with ..._FROM and ..._TO")
    for channel in profile.channels.names:
        send_now(profile.channels, channel, alert, profile.pages, now.timestamp())
        click.echo(f"{channel}: taken")


@alerts.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if the rules in it are others.")
def inhibitions(file: Path, check: bool) -> None:
    """Write the rules by which an alarm speaks for all that stands behind it into FILE, an alertmanager.yml.

    They follow the lineage of this project's columns and take the place of what stands below the file's marker line.
    """
    from ml_platform.monitoring.inhibitions import MARKER, rules_of, with_rules

    project = load_project(Profile.from_environment().project)
    text = file.read_text()
    new = with_rules(text, rules_of(project))
    if new is None:
        raise click.ClickException(f"{file} has no line {MARKER!r}; add one at its end, and the rules go below it")
    if check:
        click.echo("the rules are those of the project" if new == text else f"{file}: the rules are others")
        sys.exit(int(new != text))
    file.write_text(new)
    click.echo(f"{file}: {new.count('source_matchers')} rules")


@alerts.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def dashboards(folder: Path) -> None:
    """Write Grafana's dashboards of the platform and of its services into FOLDER, as JSON."""
    from ml_platform.monitoring.dashboards import DASHBOARDS
    from ml_platform.monitoring.dashboards_json import as_json

    folder.mkdir(parents=True, exist_ok=True)
    for name, dashboard in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(as_json(dashboard))
        click.echo(f"{folder / name}.json: {len(dashboard.panels)} panels")


def _line(kept: Kept) -> str:
    if kept.taken is not None:
        stands = f"taken at {_moment(kept.taken)}" + (f" ({kept.problem})" if kept.problem else "")
    elif kept.tries:
        stands = f"not taken in {kept.tries} tries ({kept.problem}); again after {_moment(kept.not_before)}"
    else:
        stands = "waits"
    return f"{kept.place}: {kept.part} by {kept.channel}: {stands}"


def _moment(wall: float) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%d %H:%M} UTC"


COMMANDS: tuple[Any, ...] = (metrics, alerts)
