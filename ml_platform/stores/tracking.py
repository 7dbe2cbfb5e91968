"""MLflow: runs, logged models and the registry's versions with their aliases ``champion`` and ``challenger``."""

import json
import logging
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ml_platform.spec import ModelRefused, NoChampion, UnknownName
from ml_platform.stores.home import lives
from ml_platform.stores.mlmodel import mlmodel
from ml_platform.stores.model_files import digests
from ml_platform.stores.tracking_entries import (
    ASSET_KEY,
    NOTE,
    RUN_ID,
    TRAINING_EXPERIMENT,
    Dataset,
    drawn,
    logged_for,
    measured,
    registered_as,
    source_tags,
)

CHAMPION, CHALLENGER = "champion", "challenger"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's codes for an unknown name or alias
_PROCESS = "ml_platform.process"  # the tag that says who wrote a run: host and process id
_LONGEST_VALUE = 6000  # characters of a parameter that MLflow's database takes
# Set before MLflow is imported: it sends nothing home, opens no pickle and prints no addresses.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A registered version; ``folder_uri`` is the folder that ``Tracking.download`` brings.

    files: SHA-256 of each file by its path, of a version that ``register`` returns; the registry itself keeps none.
    """

    name: str
    version: int
    run_id: str
    folder_uri: str
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def quiet_mlflow() -> None:
    """Make MLflow and its migrations say only what is wrong, and keep it from calling home."""
    for variable, value in _SETTINGS.items():
        os.environ.setdefault(variable, value)
    import mlflow

    # MLflow configures its loggers on import, the migrations theirs when they run.
    for logger in (mlflow.__name__, "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)


@dataclass(frozen=True)
class Tracking:
    """One MLflow tracking server and registry; each model has an experiment of its name.

    uri: ``sqlite:///...`` or the address of a server. artifacts: the folder (a URI) that models are kept under.
    """

    uri: str
    artifacts: str

    @cached_property
    def _client(self) -> Any:
        quiet_mlflow()
        from mlflow.tracking import MlflowClient

        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment(self, model_name: str) -> str:
        """The id of the model's experiment, made if need be."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(model_name)
        if found is not None:
            return str(found.experiment_id)
        try:
            folder = f"{self.artifacts.rstrip('/')}/{model_name}"
            return str(self._client.create_experiment(model_name, folder, tags=TRAINING_EXPERIMENT))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was quicker
                raise
            return self.experiment(model_name)

    def register(
        self,
        model_name: str,
        folder: Path,
        *,
        estimator: str,
        run_name: str,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        curves: Mapping[str, Sequence[float]] | None = None,
        dagster_run_id: str = "",
        asset_key: str = "",
        commit: str = "",
        inputs: Sequence[str] = (),
        datasets: Sequence[Dataset] = (),
        about: str = "",
        about_model: str = "",
    ) -> ModelVersion:
        """One finished MLflow run with a logged model made of the folder's files, registered as ``challenger``.

        curves: name -> value after each step of training. inputs: the model's, in order. about, about_model: Markdown
        for the version and its run, and for the registered model when it is made (a person may write another).

        The logged model is one of MLflow's own flavours (LightGBM text, PyTorch pt2), without a pickle; it takes
        encoded inputs. If anything fails, the run is marked FAILED and no version stays.
        """
        client = self._client
        self._end_abandoned(model_name)
        if dagster_run_id:
            tags = {**tags, RUN_ID: dagster_run_id, ASSET_KEY: asset_key}
        here = {_PROCESS: _this_process(), **source_tags(asset_key, commit, about)}
        learned_from, files = [each.as_input() for each in datasets], digests(folder)
        with ExitStack() as undo:
            run_id = client.create_run(
                self.experiment(model_name), run_name=run_name, tags={**tags, **here}
            ).info.run_id
            undo.callback(client.set_terminated, run_id, status="FAILED")
            model_id = self._log_model(model_name, folder, estimator, inputs, run_id, undo)
            found = measured(metrics, model_id, logged_for(learned_from, "training"))
            self._log(run_id, parameters, [*found, *drawn(curves or {})])
            if learned_from:
                client.log_inputs(run_id, datasets=learned_from, models=[])
            version = self._create_version(model_name, model_id, run_id, tags, about, about_model)
            undo.callback(client.delete_model_version, model_name, str(version.version))
            client.set_registered_model_alias(model_name, CHALLENGER, str(version.version))
            client.set_terminated(run_id, status="FINISHED")
            undo.pop_all()
        return replace(version, files=files)

    def _end_abandoned(self, model_name: str) -> None:
        """A registration that was killed left its run RUNNING: mark it, if its process was one of this machine."""
        experiment = self.experiment(model_name)
        for run in self._client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            host, _, process = run.data.tags.get(_PROCESS, "").rpartition(":")
            if host == socket.gethostname() and not lives(int(process)):
                self._client.set_terminated(run.info.run_id, status="KILLED")

    def _log_model(
        self, name: str, folder: Path, estimator: str, inputs: Sequence[str], run_id: str, undo: ExitStack
    ) -> str:
        from mlflow.entities import LoggedModelOutput

        client = self._client
        model_id = client.create_logged_model(self.experiment(name), name=name, source_run_id=run_id).model_id
        undo.callback(client.finalize_logged_model, model_id, "FAILED")
        client.log_model_artifacts(model_id, str(folder))
        with tempfile.TemporaryDirectory() as draft:
            described = Path(draft) / "MLmodel"
            described.write_text(json.dumps(mlmodel(estimator, inputs, run_id, model_id), indent=1))
            client.log_model_artifact(model_id, str(described))
        client.finalize_logged_model(model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        return str(model_id)

    def _log(self, run_id: str, parameters: Mapping[str, Any], metrics: Sequence[Any]) -> None:
        from mlflow.entities import Param

        told = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in parameters.items()]
        self._client.log_batch(run_id, metrics=list(metrics), params=told)

    def _create_version(
        self, name: str, model_id: str, run_id: str, tags: Mapping[str, str], about: str, about_model: str
    ) -> ModelVersion:
        client = self._client
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(name, description=about_model or None)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # By its folder: `models:/<id>` is looked up on MLflow's default address, whatever the client's.
        source = client.get_logged_model(model_id).artifact_location
        made = client.create_model_version(
            name, source=source, run_id=run_id, tags=dict(tags), description=about or None
        )
        client.set_logged_model_tags(model_id, registered_as(name, made.version))
        return _version(made)

    def champion(self, name: str) -> ModelVersion:
        """The version that serves.

        Raises:
            NoChampion: the model is not registered, or none was promoted.
        """
        found = self._by_alias(name, CHAMPION)
        if found is None:
            raise NoChampion(
                f"model {name} has no champion yet (asked {self.uri}); materialize models/{name}, evaluations/{name} "
                f"and its service, or run `ml-platform run`; `ml-platform history {name}` tells if one awaits approval"
            )
        return found

    def champion_version(self, name: str) -> int:
        """Its number; one query, cheap enough to ask every second.

        Raises:
            NoChampion: as ``champion``.
        """
        return self.champion(name).version

    def challenger(self, name: str) -> ModelVersion | None:
        """The newest registered version that was not promoted, if there is one."""
        return self._by_alias(name, CHALLENGER)

    def promote(self, name: str, version: int) -> None:
        """Make it the champion, and challenger no more; repeating it changes nothing.

        Raises:
            UnknownName: there is no such version.
        """
        found = self.version(name, version)
        self._client.set_registered_model_alias(name, CHAMPION, str(found.version))
        challenger = self.challenger(name)
        if challenger is not None and challenger.version == found.version:
            self._client.delete_registered_model_alias(name, CHALLENGER)

    def version(self, name: str, number: int) -> ModelVersion:
        """One version.

        Raises:
            UnknownName: there is no such model or version.
        """
        found = {version.version: version for version in self.versions(name)}
        if int(number) not in found:
            raise UnknownName(f"version of model {name}", str(number), map(str, found))
        return found[int(number)]

    def names(self) -> list[str]:
        """Every registered model."""
        found: list[str] = []
        token: str | None = None
        while True:
            page = self._client.search_registered_models(page_token=token)
            found += [model.name for model in page]
            token = page.token
            if not token:
                return sorted(found)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first.

        Raises:
            UnknownName: no version of the model was ever registered.
        """
        found: list[ModelVersion] = []
        token: str | None = None
        while not found or token:
            page = self._client.search_model_versions(f"name='{name}'", page_token=token)
            if not page:
                raise UnknownName("registered model", name, (other for other in self.names() if other != name))
            found += [_version(version) for version in page]
            token = page.token
        return sorted(found, key=lambda version: version.version)

    def download(self, version: ModelVersion, target: Path) -> Path:
        """A local folder with the version's files: its own where it is local, else a copy under ``target``.

        Raises:
            ModelRefused: the folder is gone.
        """
        address = urlparse(version.folder_uri)
        if address.scheme in ("file", ""):
            local = Path(unquote(address.path))
        else:
            quiet_mlflow()
            from mlflow.artifacts import download_artifacts

            target.mkdir(parents=True, exist_ok=True)
            local = Path(download_artifacts(version.folder_uri, dst_path=str(target), tracking_uri=self.uri))
        if not local.is_dir():
            raise ModelRefused(
                f"the files of {version.name} version {version.version} are gone from {version.folder_uri}; "
                f"restore them or train the model again"
            )
        return local

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Put tags on a version and on its run; they replace those of the same names."""
        for name, value in tags.items():
            self._client.set_model_version_tag(version.name, str(version.version), name, value)
            self._client.set_tag(version.run_id, name, value)

    def record(
        self,
        version: ModelVersion,
        metrics: Mapping[str, float],
        artifacts: Mapping[str, bytes] | None = None,
        about: str = "",
    ) -> None:
        """Add measurements and files (by path) to the version's run, which stays as finished as it was.

        The measurements are shown beside the logged model and the dataset that the run was judged on. about: replaces
        what the version and its run say of themselves.
        """
        run = self._client.get_run(version.run_id)
        models = run.outputs.model_outputs if run.outputs else []
        judged_on = logged_for(run.inputs.dataset_inputs if run.inputs else [], "evaluation")
        self._log(version.run_id, {}, measured(metrics, models[0].model_id if models else None, judged_on))
        with tempfile.TemporaryDirectory() as draft:
            for name, content in (artifacts or {}).items():
                path = Path(draft) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(version.run_id, draft, "evaluation")
        if about:
            self._client.update_model_version(version.name, str(version.version), about)
            self._client.set_tag(version.run_id, NOTE, about)

    def _by_alias(self, name: str, alias: str) -> ModelVersion | None:
        client = self._client
        from mlflow.exceptions import MlflowException

        try:
            return _version(client.get_model_version_by_alias(name, alias))
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            return None


def _version(found: Any) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        run_id=found.run_id,
        folder_uri=found.source,
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        tags=dict(found.tags),
    )
