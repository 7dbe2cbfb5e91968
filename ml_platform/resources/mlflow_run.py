"""dagster-mlflow on the platform's own MLflow, for jobs that a person runs; imported only when a run needs it."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.definitions.decorators.hook_decorator import event_list_hook  # where dagster-mlflow has it from
from dagster._core.definitions.events import HookExecutionResult

from ml_platform.stores.tracking import Tracking, quiet_mlflow

BY_HAND = "by_hand"


@dg.resource(
    config_schema={"experiment_name": dg.Field(str, default_value=BY_HAND)},
    required_resource_keys={"tracking"},
    description="An MLflow run for the Dagster run. Not for assets: under automation nothing would end it.",
)
def mlflow_run(context: dg.InitResourceContext) -> Iterator[Any]:
    """An MLflow run of the experiment, tagged with the Dagster run's id."""
    quiet_mlflow()
    from dagster_mlflow import mlflow_tracking

    tracking: Tracking = context.resources.tracking
    name = context.resource_config["experiment_name"]
    tracking.experiment(name)  # made here, so that its files lie where all others do
    config = {"experiment_name": name, "mlflow_tracking_uri": tracking.uri, "env": {}, "extra_tags": {}}
    yield from mlflow_tracking.resource_fn(context.replace_config(config))


@event_list_hook(name="end_mlflow_on_run_finished", required_resource_keys={"mlflow"})
def end_mlflow_run(context: dg.HookContext, event_list: Any) -> HookExecutionResult:
    """dagster-mlflow's hook: without it the MLflow run stays open."""
    from dagster_mlflow import end_mlflow_on_run_finished

    result: HookExecutionResult = end_mlflow_on_run_finished.hook_fn(context, event_list)
    return result
