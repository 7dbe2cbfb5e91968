"""`ml-platform bench features`: the feature layer against its peers, a section a subject."""

from collections.abc import Callable, Mapping
from importlib import import_module

import click

from ml_platform.bench.arms import machine

# Section by its name: the module that holds ``measure``, imported only when it is asked for.
SECTIONS: Mapping[str, str] = {
    "join": "ml_platform.bench.features_join",
    "windows": "ml_platform.bench.features_windows",
    "online": "ml_platform.bench.features_online",
    "stream": "ml_platform.bench.features_stream",
}


@click.command()
@click.option("--only", type=click.Choice(sorted(SECTIONS)), multiple=True, help="These sections (default: all).")
@click.option("--quick", is_flag=True, help="Small and once: to see that it works, not to quote.")
def main(only: tuple[str, ...], quick: bool) -> None:
    """Feature layer: equal answers first, then seconds and memory, each arm in a process of its own."""
    click.echo(machine(["feast", "polars", "deltalake", "numpy"]))
    for name in only or SECTIONS:
        click.echo(f"\n{name}")
        measure: Callable[..., object] = import_module(SECTIONS[name]).measure
        measure(click.echo) if name == "online" else measure(quick)
