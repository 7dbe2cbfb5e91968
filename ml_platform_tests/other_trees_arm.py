"""The arms of the training benchmark, with a LightGBM called bare that is told something else than we tell it."""

import json
import sys

import click

from ml_platform.bench import training_arm

if __name__ == "__main__":
    training_arm.BARE["seed"] += 1
    click.echo(json.dumps(training_arm.main(sys.argv[1:])))
