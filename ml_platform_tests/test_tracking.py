"""Runs, versions and aliases on a real MLflow with SQLite."""

import json
import logging
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_platform.spec import ModelRefused, NoChampion, UnknownName
from ml_platform.stores.tracking import ModelVersion, Tracking
from ml_platform.stores.tracking_entries import Dataset
from ml_platform.training.estimators import load, train
from ml_platform_tests.test_estimators import NETWORK
from ml_platform_tests.test_training import SPEC, START, rows_of, world_of

TRAINED = Dataset(
    name="training_sets/m (train)",
    digest="abc" * 20,
    source="/lake/training_sets/m",
    version=0,
    context="training",
    rows=30,
    columns={"label": "long", "hour": "double"},
)
HELD_OUT = replace(TRAINED, name="training_sets/m (holdout)", context="evaluation", rows=10)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: the migrations take seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.raises(NoChampion):
        Tracking(f"sqlite:///{path}", path.parent.as_uri()).champion("m")
    return path


@pytest.fixture
def tracking(empty_database: Path, tmp_path: Path) -> Tracking:
    (tmp_path / "mlflow").mkdir()
    shutil.copy(empty_database, tmp_path / "mlflow" / "mlflow.db")
    return Tracking(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}", (tmp_path / "mlflow" / "artifacts").as_uri())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "drafts" / "model"
    path.mkdir(parents=True)
    (path / "model.txt").write_text("tree")
    (path / "schema.json").write_text("{}")
    return path


def register(tracking: Tracking, folder: Path, name: str = "m", **changed: Any) -> ModelVersion:
    told: dict[str, Any] = {
        "estimator": "lightgbm",
        "run_name": "first",
        "parameters": {"num_leaves": 7},
        "metrics": {"auc": 0.7},
        "tags": {"trained_until": "2013-03-24T00:00:00+00:00"},
        "dagster_run_id": "run-1",
        "asset_key": "models/m",
        "datasets": [TRAINED, HELD_OUT],
    }
    return tracking.register(name, folder, **(told | changed))


def test_a_version_has_one_finished_run_with_everything_in_it(tracking: Tracking, folder: Path, tmp_path: Path) -> None:
    version = register(tracking, folder)
    assert (version.name, version.version) == ("m", 1)
    from_dagster = {"dagster.run_id": "run-1", "dagster.asset_key": "models/m"}
    assert version.tags == {"trained_until": "2013-03-24T00:00:00+00:00", **from_dagster}
    run = tracking._client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"num_leaves": "7"}
    assert run.data.metrics == {"auc": 0.7}
    assert run.data.tags["dagster.run_id"] == "run-1"
    assert run.data.tags["dagster.asset_key"] == "models/m"
    local = tracking.download(version, tmp_path / "copy")
    assert {path.name for path in local.iterdir()} == {"model.txt", "schema.json", "MLmodel"}
    assert (local / "model.txt").read_text() == "tree"
    assert not (tmp_path / "copy").exists()
    logged = tracking._client.search_logged_models([run.info.experiment_id])
    assert [(model.status, model.source_run_id) for model in logged] == [("READY", version.run_id)]


def test_aliases_move(tracking: Tracking, folder: Path) -> None:
    with pytest.raises(NoChampion, match=r"model m has no champion yet .* materialize models/m"):
        tracking.champion("m")
    assert tracking.challenger("m") is None
    register(tracking, folder)
    with pytest.raises(NoChampion):
        tracking.champion_version("m")
    challenger = tracking.challenger("m")
    assert challenger is not None
    assert challenger.version == 1
    for _ in range(2):
        tracking.promote("m", 1)
        assert tracking.champion_version("m") == 1
        assert tracking.challenger("m") is None
    register(tracking, folder)
    register(tracking, folder)
    tracking.promote("m", 2)
    assert tracking.champion("m").version == 2
    newest = tracking.challenger("m")
    assert newest is not None
    assert newest.version == 3
    assert [version.version for version in tracking.versions("m")] == [1, 2, 3]
    tracking.promote("m", 1)
    assert tracking.champion_version("m") == 1


def test_unknown_names_offer_the_known(tracking: Tracking, folder: Path) -> None:
    register(tracking, folder, name="delay_trees")
    with pytest.raises(UnknownName, match="did you mean delay_trees"):
        tracking.versions("delay_tree")
    with pytest.raises(UnknownName, match="no version of model delay_trees named '7'; known: 1"):
        tracking.version("delay_trees", 7)
    with pytest.raises(UnknownName):
        tracking.promote("delay_trees", 7)
    assert tracking.version("delay_trees", 1).version == 1


@pytest.mark.parametrize("step", ["log_model_artifacts", "create_model_version", "set_registered_model_alias"])
def test_a_failure_leaves_a_failed_run_and_no_version(
    tracking: Tracking, folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(tracking, folder)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(tracking._client, step, full)
        with pytest.raises(OSError, match="disk full"):
            register(tracking, folder)
    assert [version.version for version in tracking.versions("m")] == [1]
    challenger = tracking.challenger("m")
    assert challenger is not None
    assert challenger.version == 1
    runs = tracking._client.search_runs([tracking.experiment("m")])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]
    assert register(tracking, folder).tags


_REGISTERS = """
import sys, time
from pathlib import Path
from ml_platform.stores.tracking import Tracking

class Slow(Tracking):
    def _log(self, *arguments):
        time.sleep(600)

Slow(sys.argv[1], sys.argv[2]).register(
    "m", Path(sys.argv[3]), estimator="lightgbm", run_name="killed", parameters={}, metrics={}, tags={})
"""


def test_a_killed_registration_is_marked_by_the_next_one(tracking: Tracking, folder: Path) -> None:
    command = [sys.executable, "-c", _REGISTERS, tracking.uri, tracking.artifacts, str(folder)]
    experiment = tracking.experiment("m")

    def states() -> dict[str, str]:
        return {run.info.run_name: run.info.status for run in tracking._client.search_runs([experiment])}

    with subprocess.Popen(command) as child:
        deadline = time.monotonic() + 60
        while "killed" not in states() and time.monotonic() < deadline:
            assert child.poll() is None
            time.sleep(0.1)
        register(tracking, folder, run_name="beside")
        assert states() == {"killed": "RUNNING", "beside": "FINISHED"}  # it lives still
        child.kill()
    register(tracking, folder, run_name="after")
    assert states() == {"killed": "KILLED", "beside": "FINISHED", "after": "FINISHED"}


def test_later_measurements_join_the_finished_run(tracking: Tracking, folder: Path) -> None:
    version = register(tracking, folder)
    tracking.record(version, {"holdout_auc": 0.75}, {"roc.png": b"png", "report.html": b"<p>"})
    run = tracking._client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"auc": 0.7, "holdout_auc": 0.75}
    names = {item.path for item in tracking._client.list_artifacts(version.run_id, "evaluation")}
    assert names == {"evaluation/roc.png", "evaluation/report.html"}


def test_the_datasets_are_mlflows_own(tracking: Tracking, folder: Path) -> None:
    """MLflow itself reads back the table, its version 0, and which measures are of which part."""
    import mlflow.data
    from mlflow.types import Schema

    version = register(tracking, folder)
    tracking.record(version, {"holdout_auc": 0.75})
    run = tracking._client.get_run(version.run_id)
    contexts = {item.dataset.name: {tag.key: tag.value for tag in item.tags} for item in run.inputs.dataset_inputs}
    assert contexts == {
        "training_sets/m (train)": {"mlflow.data.context": "training"},
        "training_sets/m (holdout)": {"mlflow.data.context": "evaluation"},
    }
    for item in run.inputs.dataset_inputs:
        source = mlflow.data.get_source(item)
        assert type(source).__name__ == "DeltaDatasetSource"
        assert (source.path, source.delta_table_version) == ("/lake/training_sets/m", 0)
        assert Schema.from_json(json.dumps(json.loads(item.dataset.schema)["mlflow_colspec"])).input_names() == [
            "label",
            "hour",
        ]
    (logged,) = tracking._client.search_logged_models([run.info.experiment_id])
    assert {(metric.key, metric.dataset_name) for metric in logged.metrics} == {
        ("auc", "training_sets/m (train)"),
        ("holdout_auc", "training_sets/m (holdout)"),
    }
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "m", "version": "1"}]


@pytest.mark.parametrize("steps", [3, 1000])
def test_a_curve_keeps_its_ends_and_is_thinned_out(tracking: Tracking, folder: Path, steps: int) -> None:
    version = register(tracking, folder, curves={"loss": [1 / (step + 1) for step in range(steps)]})
    points = tracking._client.get_metric_history(version.run_id, "loss")
    assert len(points) == min(steps, 100)
    assert (points[0].step, points[-1].step) == (1, steps)
    assert all(point.value == 1 / point.step for point in points)


def test_descriptions_are_written_and_what_a_person_wrote_of_a_model_stays(tracking: Tracking, folder: Path) -> None:
    version = register(tracking, folder, about="Not judged yet.", about_model="Late or not.")
    client = tracking._client
    assert client.get_registered_model("m").description == "Late or not."
    assert client.get_model_version("m", "1").description == "Not judged yet."
    client.update_registered_model("m", "Ours.")
    tracking.record(version, {}, about="Gate: pass.")
    register(tracking, folder, about_model="Late or not.")
    assert client.get_registered_model("m").description == "Ours."
    assert client.get_model_version("m", "1").description == "Gate: pass."
    assert client.get_run(version.run_id).data.tags["mlflow.note.content"] == "Gate: pass."


def test_a_version_whose_files_are_gone_is_refused(tracking: Tracking, folder: Path, tmp_path: Path) -> None:
    version = register(tracking, folder)
    shutil.rmtree(tracking.download(version, tmp_path))
    with pytest.raises(ModelRefused, match="the files of m version 1 are gone"):
        tracking.download(version, tmp_path)


def test_it_is_quiet_and_quick_to_poll(
    tracking: Tracking, folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        caplog.clear()
        register(tracking, folder)
        tracking.promote("m", 1)
    assert [record.message for record in caplog.records if record.name.startswith(("mlflow", "alembic"))] == []
    assert capfd.readouterr() == ("", "")
    started = time.perf_counter()
    for _ in range(20):
        tracking.champion_version("m")
    assert (time.perf_counter() - started) / 20 < 0.2  # 2 to 7 ms measured; a busy machine is given much


@pytest.mark.parametrize("spec", [SPEC, NETWORK], ids=["lightgbm", "torch"])
def test_mlflow_loads_the_logged_model_without_a_pickle(spec: Any, tracking: Tracking, tmp_path: Path) -> None:
    import mlflow.lightgbm
    import mlflow.pytorch

    rows: pl.DataFrame = rows_of(world_of(40), START.replace(month=4))
    model = train(spec, rows, threads=1)
    version = register(tracking, model.save(tmp_path / "draft"), estimator=spec.estimator)
    local = tracking.download(version, tmp_path)
    matrix = model.encoding.frame_matrix(rows.head(128))
    expected = model.predict(rows.head(128))
    assert np.array_equal(load(local).predict_matrix(matrix), expected)
    if spec.estimator == "torch":
        import torch

        with torch.inference_mode():
            loaded = mlflow.pytorch.load_model(str(local))(torch.from_numpy(matrix)).numpy()[:, 0]
    else:
        loaded = mlflow.lightgbm.load_model(str(local)).predict(matrix)
    assert np.array_equal(loaded, expected)
    described = json.loads((local / "MLmodel").read_text())
    assert "pickle" not in json.dumps(described)
    assert sys.modules["mlflow"].__version__ == described["mlflow_version"]
