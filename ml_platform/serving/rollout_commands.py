"""`ml-platform rollout`: where a service's rollout stands, and what operators do to it; `ml-platform referee`."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.spec import DeclarationError, Project, UnknownName
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.rollout_state import Rollout, RolloutFile, history_path


class _Desk:
    """What the commands work with: the state folder, and the rollout's file of one service."""

    def __init__(self, service: str | None) -> None:
        from ml_platform.serving.rollout_files import policy_of, rollout_file

        self.profile = Profile.from_environment()
        Home(self.profile.home).prepare(self.profile.project)
        self.project: Project = load_project(self.profile.project)
        self.service = service or next(iter(self.project.services))
        if self.service not in self.project.services:
            raise UnknownName("service", self.service, self.project.services)
        policy = policy_of(self.project, self.service)
        if policy is None:
            raise DeclarationError(
                f"service {self.service} has no rollout policy: its versions take over at once; declare a "
                f"RolloutPolicy with service={self.service!r} in the project's policies"
            )
        self.policy = policy
        self.file: RolloutFile = rollout_file(self.profile, self.service)
        self.ledger = Ledger(self.profile.ledger_path)
        self.now = Clock(self.profile.clock_path).now()


@click.group()
def rollout() -> None:
    """Where a service's rollout stands, and what operators do to it; each word of theirs is a line in the ledger."""


@rollout.command()
@click.argument("service", required=False)
@click.option("--json", "plain", is_flag=True, help="As JSON.")
def status(service: str | None, plain: bool) -> None:
    """Where the rollout of SERVICE stands, its evidence, and what it waits for."""
    from ml_platform.serving.referee import read_history

    desk = _Desk(service)
    stands = desk.file.read()
    if stands is None:
        click.echo(json.dumps(None) if plain else f"service {desk.service} never had a rollout")
        return
    looks = read_history(history_path(desk.file, stands.number))
    last = looks[-1] if looks else None
    if plain:
        body = {**asdict(stands), "begun": stands.begun.isoformat(), "since": stands.since.isoformat(), "look": last}
        click.echo(json.dumps(body, indent=2))
        return
    click.echo(_sentence(stands))
    if last is None:
        click.echo("nothing was looked at yet: no answer since, or no referee runs (`ml-platform serve` starts one)")
        return
    for name, guard in last["guards"].items():
        click.echo(f"  {guard['sentence'] or f'{name}: no data'}")
    enough = 1 / desk.policy.alpha
    click.echo(f"  together: E that it is worse {last['against']:.3g}; at {enough:g} it is taken back")
    if stands.runs:
        click.echo(f"  waits for {last['waits_for']}")


def _sentence(stands: Rollout) -> str:
    where = "asked unseen" if stands.phase == "shadow" else f"answers {stands.share:.0%}"
    told = where if stands.runs else stands.phase.replace("_", " ")
    rests = ", paused" if stands.resting and stands.runs else ""
    return (
        f"version {stands.canary} over version {stands.champion} of {stands.model}: {told}{rests} since "
        f"{stands.since:%Y-%m-%d %H:%M} UTC: {stands.reason}"
    )


@rollout.command()
@click.argument("service", required=False)
def compare(service: str | None) -> None:
    """What the canary's units of SERVICE cost beside the champion's: an A/B test that may be watched all the time."""
    from ml_platform.serving import ab_report
    from ml_platform.spec.calendar import day_of
    from ml_platform.stores.log_tail import LogTail

    desk = _Desk(service)
    stands = desk.file.read()
    if stands is None:
        click.echo(f"service {desk.service} never had a rollout, so there is nothing to compare")
        return
    tail = LogTail(desk.profile.log_path, desk.service, day_of(stands.begun, desk.project.timezone))
    found = ab_report.reports(desk.policy, ab_report.records(desk.policy, stands, tail, desk.now))
    for report in found:
        click.echo(report.sentence)
    page = desk.profile.reports_path / f"ab-{desk.service}-{stands.number}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(ab_report.page(stands, found))
    click.echo(f"page: {page}")


def _word(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--reason", required=True, help="Why; better without naming an entity."),
        click.option("--by", required=True, help="Who decides."),
        click.argument("service", required=False),
    ):
        command = option(command)
    return command


@rollout.command()
@_word
def pause(service: str | None, by: str, reason: str) -> None:
    """Keep the share as it is. Evidence is still gathered, and still takes a bad version back."""
    _say(_operated("pause", service, by, reason))


@rollout.command()
@_word
def resume(service: str | None, by: str, reason: str) -> None:
    """Let a paused rollout go on."""
    _say(_operated("resume", service, by, reason))


@rollout.command()
@_word
def abort(service: str | None, by: str, reason: str) -> None:
    """End it without a verdict: the champion answers everybody."""
    _say(_operated("abort", service, by, reason))


@rollout.command("rollback")
@_word
def rollback(service: str | None, by: str, reason: str) -> None:
    """Take the canary back at once; where no rollout runs, the champion: the version before it serves again."""
    from ml_platform.serving.approvals import Word
    from ml_platform.serving.operators import roll_back
    from ml_platform.stores.tracking import Tracking

    desk = _Desk(service)
    tracking = Tracking(desk.profile.mlflow_uri, desk.profile.mlflow_artifacts)
    model, word = desk.project.services[desk.service].model, Word(by=by, reason=reason)
    line = roll_back(desk.file, tracking, desk.ledger, model, desk.service, word, desk.now)
    click.echo(f"line {line.number}: version {line.body['version']} serves instead of version {line.body['before']}")


def _operated(what: str, service: str | None, by: str, reason: str) -> Rollout:
    from ml_platform.serving import operators
    from ml_platform.serving.approvals import Word

    desk = _Desk(service)
    done: Rollout = getattr(operators, what)(desk.file, desk.ledger, desk.service, Word(by=by, reason=reason), desk.now)
    return done


def _say(stands: Rollout) -> None:
    click.echo(_sentence(stands))


@click.command()
@click.argument("service", required=False)
def referee(service: str | None) -> None:
    """Watch the rollouts of SERVICE where its workers run without one: a container beside them. Ctrl-C ends it."""
    import signal
    import threading

    from ml_platform.serving.referee_process import watch

    desk = _Desk(service)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    click.echo(f"watching the rollouts of service {desk.service}; Ctrl-C ends it")
    watch(desk.profile, desk.service, stop)


COMMANDS: tuple[Any, ...] = (rollout, referee)
