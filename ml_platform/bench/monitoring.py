"""`ml-platform bench monitoring`: what watching costs, how often it is wrong, how soon it acts."""

from collections.abc import Callable
from importlib import import_module

import click

from ml_platform.bench.arms import machine

PARTS = {
    "contracts": "ml_platform.bench.monitoring_contracts",
    "profile": "ml_platform.bench.monitoring_profile",
    "alarms": "ml_platform.bench.monitoring_alarms",
    "backtest": "ml_platform.bench.monitoring_backtest",
    "reaction": "ml_platform.bench.monitoring_reaction",
}


def measure(only: tuple[str, ...], *, quick: bool, echo: Callable[[str], object] = click.echo) -> None:
    """The parts one after the other, all if none is named."""
    echo(machine(["polars", "numpy", "lightgbm"]))
    for name in only or PARTS:
        echo(name)
        import_module(PARTS[name]).measure(quick=quick, echo=echo)


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="One part; may be given several times.")
@click.option("--quick", is_flag=True, help="A little of everything: to see that it works, not to quote.")
def main(only: tuple[str, ...], quick: bool) -> None:
    """Monitoring: contracts and profiles beside their peers, false alarms, policies, seconds until it acts.

    The part `reaction` is read off the state that the environment names, as `ml-platform run` left it.
    """
    measure(only, quick=quick)
