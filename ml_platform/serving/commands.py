"""The commands about a model's versions: `ml-platform approve`, `reject`, `adopt` and `history`."""

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from ml_platform.decisions.opened import Here
from ml_platform.stores.ledger_kinds import OF_A_MODEL


def _about_a_version_or_drift(command: Callable[..., None]) -> Callable[..., None]:
    """MODEL VERSION, or MODEL --drift LINE, with --by --reason."""
    for option in (
        click.option(
            "--reason", required=True, help="Why; better without naming an entity: forgetting it takes the reason out."
        ),
        click.option("--by", required=True, help="Who decides."),
        click.option("--drift", type=click.IntRange(1), help="Instead of a version: the ledger's line of a review."),
        click.argument("version", type=click.IntRange(1), required=False),
        click.argument("model"),
    ):
        command = option(command)
    return command


def _about_a_version(command: Callable[..., None]) -> Callable[..., None]:
    """MODEL VERSION --by --reason, which the three commands that change something have in common."""
    for option in (
        click.option(
            "--reason", required=True, help="Why; better without naming an entity: forgetting it takes the reason out."
        ),
        click.option("--by", required=True, help="Who decides."),
        click.argument("version", type=click.IntRange(1)),
        click.argument("model"),
    ):
        command = option(command)
    return command


@click.command()
@_about_a_version_or_drift
@click.option("--override", is_flag=True, help="Also a version that did not pass the gate.")
def approve(model: str, version: int | None, by: str, reason: str, drift: int | None, override: bool) -> None:
    """Let VERSION of MODEL pass, and promote it unless something else holds it.

    What cannot be promoted now (served values differ) is promoted by the next deployment. Saying it again changes
    nothing. With --drift: let drift that no policy answers be a reason to retrain MODEL.
    """
    if _is_about_drift(version, drift):
        _answer_review(model, drift, by, reason, retrain=True)
        return
    assert version is not None
    from ml_platform.serving.approvals import Word
    from ml_platform.serving.approvals import approve as approved
    from ml_platform.serving.deployment import deploy
    from ml_platform.serving.rollout_way import Way

    here = Here.opened()
    name, word = here.declared(model), Word(by=by, reason=reason)
    line = approved(here.tracking, here.ledger, name, version, word, here.now, override=override)
    click.echo(f"line {line.number}: version {version} of {model} is approved by {line.body['by']}")
    asks = here.project.models[name].gate.approval
    for service in here.project.services.values():
        if service.model == name:
            way = Way.of(here.project, service.name, here.profile)
            done = deploy(service, here.tracking, here.ledger, here.now, approval=asks, way=way)
            click.echo(f"services/{service.name}: {done.action}, champion is {done.champion or 'none'}: {done.reason}")


@click.command()
@_about_a_version_or_drift
def reject(model: str, version: int | None, by: str, reason: str, drift: int | None) -> None:
    """End the candidacy of VERSION of MODEL: it is never promoted. With --drift: drift is no reason to retrain."""
    if _is_about_drift(version, drift):
        _answer_review(model, drift, by, reason, retrain=False)
        return
    assert version is not None
    from ml_platform.serving.aliases import champion_version
    from ml_platform.serving.approvals import Word
    from ml_platform.serving.approvals import reject as rejected
    from ml_platform.serving.rollout_way import Way, end_vain

    here = Here.opened()
    word = Word(by=by, reason=reason)
    line = rejected(here.tracking, here.ledger, here.declared(model), version, word, here.now)
    for service in here.project.services.values():
        way = Way.of(here.project, service.name, here.profile)
        if service.model == model and way is not None:
            end_vain(way, here.ledger, model, champion_version(here.tracking, model), here.now)
    click.echo(f"line {line.number}: version {version} of {model} is rejected by {line.body['by']}")


def _is_about_drift(version: int | None, drift: int | None) -> bool:
    if (version is None) == (drift is None):
        raise click.UsageError("give a VERSION, or --drift with the line of a review, and not both")
    return drift is not None


def _answer_review(model: str, review: int | None, by: str, reason: str, *, retrain: bool) -> None:
    from ml_platform.decisions.reviews import answer

    assert review is not None
    here = Here.opened()
    name = here.declared(model)
    line = answer(here.ledger, name, review, retrain=retrain, by=by, reason=reason, now=here.now)
    what = "a reason to retrain it, which the next decision does" if retrain else "no reason to retrain it"
    click.echo(f"line {line.number}: the drift of line {review} is {what}, said {line.body['by']}")


@click.command()
@_about_a_version
def adopt(model: str, version: int, by: str, reason: str) -> None:
    """After somebody moved MODEL's champion in MLflow: VERSION (found there, or recorded here) is the right one."""
    from ml_platform.serving.approvals import Word
    from ml_platform.serving.approvals import adopt as adopted

    here = Here.opened()
    word = Word(by=by, reason=reason)
    line = adopted(here.tracking, here.ledger, here.declared(model), version, word, here.now)
    click.echo(f"line {line.number}: version {version} of {model} is champion, said {line.body['by']}")


@click.command()
@click.argument("model")
@click.option("--at", "moment", help="What served then: a moment with its timezone, such as 2013-04-15T12:30+00:00.")
@click.option("--json", "plain", is_flag=True, help="As JSON.")
@click.option("--anyway", is_flag=True, help="Answer from a ledger that was tampered with, too.")
def history(model: str, moment: str | None, plain: bool, anyway: bool) -> None:
    """Everything that the ledger says of MODEL's versions, or what served at a moment."""
    from ml_platform.serving.history import as_json, at, moment_of, table

    here = Here.opened()
    here.known(model)
    try:
        asked = moment_of(moment, here.now) if moment is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--at") from error
    broken = here.broken(anyway=anyway)
    lines = here.ledger.about(model, OF_A_MODEL)
    if asked:
        said, values = at(model, lines, asked)
        click.echo(_json(values, broken) if plain else said)
    elif plain:
        click.echo(_json({"model": model, "lines": as_json(lines)}, broken))
    else:
        click.echo("\n".join(table(lines)) or f"the ledger says nothing of {model} yet")
    sys.exit(int(broken is not None))


def _json(values: dict[str, Any], broken: str | None) -> str:
    return json.dumps({**values, "broken": broken}, indent=2)
