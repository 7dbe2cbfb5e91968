"""Addresses of the pages of MLflow's and Dagster's UI, by which each leads to the other."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pages:
    """mlflow, dagster: where the two UIs are, as a browser reaches them, without a slash at the end."""

    mlflow: str
    dagster: str

    def mlflow_run(self, experiment: str, run_id: str) -> str:
        """Parameters, measures, datasets and files of a run."""
        return f"{self.mlflow}/#/experiments/{experiment}/runs/{run_id}"

    def mlflow_version(self, model: str, version: int) -> str:
        """A registered version."""
        return f"{self.mlflow}/#/models/{model}/versions/{version}"

    def dagster_run(self, run_id: str) -> str:
        """Steps and events of a run."""
        return f"{self.dagster}/runs/{run_id}"

    def dagster_asset(self, key: str) -> str:
        """An asset, by its key as people write it (``models/delay``)."""
        return f"{self.dagster}/assets/{key}"
