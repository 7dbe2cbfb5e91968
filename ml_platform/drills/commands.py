"""`ml-platform drill ...`."""

import click

from ml_platform.drills.faults import faults
from ml_platform.drills.rollback import rollback


@click.group()
def drill() -> None:
    """What is wrong on purpose, tried on replayed days: is it stopped, and when?"""


drill.add_command(rollback)
drill.add_command(faults)
