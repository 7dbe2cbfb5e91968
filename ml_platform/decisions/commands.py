"""`ml-platform retrain` and `ml-platform why`."""

import json
import sys

import click

from ml_platform.decisions.opened import Here


@click.command()
@click.argument("model")
@click.option("--by", required=True, help="Who asks.")
@click.option("--reason", required=True, help="Why; better without naming an entity: forgetting it takes it out.")
def retrain(model: str, by: str, reason: str) -> None:
    """Ask for a retraining of MODEL: it waits for no cooldown, budget or estimate, and closes an open breaker.

    It stays wanted until a training that began after this is registered. Where Dagster runs live on this state, its
    alarm is raised at once, otherwise with the next decision.
    """
    from ml_platform.decisions.asking import ask, asked_for

    here = Here.opened()
    line, decision, raised = ask(here, here.retrained(model), by, reason)
    click.echo(f"line {line.number}: {line.body['by']} asks for a retraining of {model}")
    click.echo(asked_for(decision, raised=raised))


@click.command()
@click.argument("model")
@click.option("--at", "at", help="As of then: a moment with its timezone, such as 2013-04-15T12:30+00:00.")
@click.option("--json", "plain", is_flag=True, help="As JSON.")
@click.option("--anyway", is_flag=True, help="Answer from a ledger that was tampered with, too.")
def why(model: str, at: str | None, plain: bool, anyway: bool) -> None:
    """Why MODEL was or was not retrained, promoted, rolled back, and when it could be next: from the ledger alone."""
    from ml_platform.decisions.why import why as told

    here = Here.opened()
    here.known(model)
    moment, broken = here.moment(at), here.broken(anyway=anyway)
    found = told(here.ledger, model, moment)
    click.echo(json.dumps({**found.as_json(), "broken": broken}, indent=2) if plain else found.text)
    sys.exit(int(broken is not None))


COMMANDS = (retrain, why)
