"""`ml-platform bench ...`."""

import click

from ml_platform.bench.features import main as features
from ml_platform.bench.fire import main as fire
from ml_platform.bench.fuzz import main as fuzz
from ml_platform.bench.loading import main as loading
from ml_platform.bench.monitoring import main as monitoring
from ml_platform.bench.rollout import main as rollout
from ml_platform.bench.serving import main as serving
from ml_platform.bench.training import main as training


@click.group()
def bench() -> None:
    """Figures that anyone can reproduce."""


@bench.command()
def split() -> None:
    """The fixed split: train 15 Jan-31 Aug, validate September, test October-December."""
    from ml_platform.bench.split import main as measure

    measure()


bench.add_command(loading, "loading")
bench.add_command(features, "features")
bench.add_command(fire, "fire")
bench.add_command(fuzz, "fuzz")
bench.add_command(monitoring, "monitoring")
bench.add_command(rollout, "rollout")
bench.add_command(training, "training")
bench.add_command(serving, "serving")
