"""`ml-platform explain`."""

import json
import sys

import click

from ml_platform.resources.profiles import Profile
from ml_platform.stores.home import Home


@click.command()
@click.argument("prediction_id")
@click.option("--service", help="Which service answered, if several did under this id.")
@click.option("--json", "plain", is_flag=True, help="As JSON.")
def explain(prediction_id: str, service: str | None, plain: bool) -> None:
    """Why PREDICTION_ID was answered as it was: features as served, versions, what each of them added.

    Exit code 1 if the logged vector does not give the logged probability again, or contributions do not add up to it.
    """
    from ml_platform.evaluation.answered import answered
    from ml_platform.evaluation.explain import explain as taken_apart
    from ml_platform.evaluation.explained import as_json, lines
    from ml_platform.resources.projects import load_project
    from ml_platform.stores.delta import Lake
    from ml_platform.stores.forgotten import forgotten_in
    from ml_platform.stores.prediction_log import PredictionLog
    from ml_platform.stores.tracking import Tracking

    profile = Profile.from_environment()
    Home(profile.home).prepare(profile.project)
    project, lake = load_project(profile.project), Lake(profile.lake, profile.storage_options)
    log, forgotten = PredictionLog(profile.log_path), forgotten_in(profile.home)
    answer = answered(project, lake, log, forgotten, prediction_id, service)
    found = taken_apart(answer, project, Tracking(profile.mlflow_uri, profile.mlflow_artifacts))
    click.echo(json.dumps(as_json(found), indent=2) if plain else "\n".join(lines(found)))
    sys.exit(int(bool(found.problems)))
