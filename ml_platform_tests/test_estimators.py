"""Estimators: the same answers from frames, requests and files; what cannot be trained or opened is refused."""

import hashlib
import io
import json
import sys
import zipfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_platform.spec import (
    DeclarationError,
    ModelRefused,
    ModelSpec,
    TooFewLabels,
    blend_of,
    scikit,
)
from ml_platform.training.estimators import load, train
from ml_platform.training.model import Model, stored_digests
from ml_platform_tests.test_training import SPEC, START, rows_of, world_of

NETWORK = replace(SPEC, estimator="torch", parameters={"hidden": (16,), "epochs": 6, "batch_rows": 64})
BLEND = replace(SPEC, estimator="blend", parameters=blend_of(SPEC, NETWORK, weights=(3, 1)))
LOGISTIC = scikit(
    ("sklearn.impute.SimpleImputer", {"keep_empty_features": True}),
    ("sklearn.preprocessing.StandardScaler", {}),
    ("sklearn.linear_model.LogisticRegression", {}),
)
REGRESSION = replace(SPEC, estimator="sklearn", parameters=LOGISTIC)
FOREST = replace(
    SPEC,
    estimator="sklearn",
    parameters=scikit(("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 30, "min_samples_leaf": 10})),
)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    now = START + timedelta(days=40)
    return rows_of(world_of(40), now)


@pytest.fixture(
    scope="module",
    params=[SPEC, NETWORK, BLEND, REGRESSION, FOREST],
    ids=["lightgbm", "torch", "blend", "logistic", "forest"],
)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    found: ModelSpec = request.param
    return found


@pytest.fixture(scope="module")
def model(spec: ModelSpec, rows: pl.DataFrame) -> Model:
    return train(spec, rows, threads=1)


def test_it_learns(model: Model, rows: pl.DataFrame) -> None:
    from ml_platform import metrics

    fresh = rows_of(world_of(20, seed=4), START + timedelta(days=20))
    given_ = model.predict(fresh)
    base = np.full(fresh.height, rows["label"].mean())
    assert metrics.auc(fresh["label"], given_) > 0.75
    assert metrics.log_loss(fresh["label"], given_) < metrics.log_loss(fresh["label"], base) - 0.1
    assert sum(model.importances.values()) == pytest.approx(1)
    assert max(model.importances, key=lambda name: model.importances[name]) in ("by_line__a", "line")


def test_frames_requests_and_files_answer_bit_for_bit_alike(model: Model, rows: pl.DataFrame, tmp_path: Path) -> None:
    asked = rows.sample(300, seed=1).with_columns(
        line=pl.when(pl.col("by_line__n") % 7 == 0).then(pl.lit("unseen")).otherwise("line")
    )
    answers = model.predict(asked)
    assert answers.shape == (300,)
    requests = asked.select(model.encoding.inputs).to_dicts()
    assert np.array_equal(model.matrix(requests), model.encoding.frame_matrix(asked), equal_nan=True)
    assert np.array_equal(model.predict_rows(requests), answers)
    assert [model.predict_rows([request])[0] for request in requests[:40]] == answers[:40].tolist()
    loaded = load(model.save(tmp_path / "model"))
    assert np.array_equal(loaded.predict(asked), answers)
    assert loaded.facts == json.loads(json.dumps(model.facts))
    assert loaded.importances == model.importances
    assert model.predict(asked.clear()).shape == (0,)


def test_the_same_rows_and_seed_give_the_same_model(model: Model, spec: ModelSpec, rows: pl.DataFrame) -> None:
    threads = 2 if spec.estimator == "lightgbm" else 1  # a network repeats for one number of threads only
    again = train(spec, rows, threads=threads)
    assert np.array_equal(again.predict(rows), model.predict(rows))
    alone = again if threads == 1 else train(spec, rows, threads=1)
    assert alone.digests() == model.digests()
    other = train(replace(spec, seed=2), rows.head(rows.height - 40), threads=1)
    assert other.digests() != model.digests()


def test_what_is_stored_has_the_digests_of_what_was_trained(model: Model, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "model")
    assert stored_digests(folder) == model.digests()


def test_a_blend_is_the_mean_of_its_members(rows: pl.DataFrame) -> None:
    members = [train(each, rows, threads=1).predict(rows) for each in (SPEC, NETWORK)]
    blend = train(BLEND, rows, threads=1)
    assert np.allclose(blend.predict(rows), 0.75 * members[0] + 0.25 * members[1], rtol=0, atol=1e-15)
    for wrong in ({"weights": (1.0,)}, {"weights": (1.0, -1.0)}):
        with pytest.raises(ValueError, match="a blend needs members and a positive weight"):
            blend_of(SPEC, NETWORK, **wrong)


def test_a_blend_with_an_exchanged_member_is_refused(rows: pl.DataFrame, tmp_path: Path) -> None:
    folder = train(BLEND, rows, threads=1).save(tmp_path / "model")
    train(replace(SPEC, seed=9), rows.head(900), threads=1).save(folder / "member-0")
    with pytest.raises(ModelRefused, match="a member is not the one that was blended"):
        load(folder)


def test_a_network_learns_the_amount_beside_the_label(rows: pl.DataFrame, tmp_path: Path) -> None:
    """Minutes that follow the label's own causes: it must know far more of them than their median does."""
    draw = np.random.default_rng(1)
    minutes = (
        10 * rows["by_line__a"].fill_null(0).to_numpy() + 5 * rows["label"].to_numpy() + draw.normal(size=rows.height)
    )
    amounts = pl.Series("quantity", minutes).set(pl.Series(np.arange(rows.height) % 9 == 0), None)
    spec = replace(NETWORK, parameters={**NETWORK.parameters, "epochs": 20})
    trained = train(spec, rows.with_columns(amounts), threads=1)
    matrix = trained.encoding.frame_matrix(rows)
    found = trained.predict_quantity(matrix)
    assert found is not None
    assert np.abs(found - minutes).mean() < 0.5 * np.abs(np.median(minutes) - minutes).mean()
    loaded = load(trained.save(tmp_path / "model"))
    again = loaded.predict_quantity(matrix)
    assert again is not None
    assert np.array_equal(again, found)
    assert np.array_equal(loaded.predict(rows), trained.predict(rows))
    assert [loaded.predict_quantity(matrix[n : n + 1]).tolist() for n in range(5)] == [[x] for x in found[:5]]  # type: ignore[union-attr]
    assert train(NETWORK, rows, threads=1).predict_quantity(matrix) is None
    assert loaded.predict_quantity(matrix[:0]).shape == (0,)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({}, "names no steps"),
        (scikit(("sklearn.linear_model.LogisticRegresion", {})), "cannot be made: .*LogisticRegresion"),
        (scikit(("nowhere.Thing", {})), "cannot be made: No module named 'nowhere'"),
        (scikit(("sklearn.linear_model.LogisticRegression", {"depth": 3})), "cannot be made: .*depth"),
        (scikit(("sklearn.linear_model.LogisticRegression", {})), "cannot be fitted: .*NaN"),
        (scikit(("sklearn.impute.SimpleImputer", {}), ("sklearn.svm.LinearSVC", {})), "gives no probabilities"),
        (scikit(("lightgbm.LGBMClassifier", {"n_estimators": 2, "verbose": -1})), "holds .*lightgbm.* could run code"),
    ],
)
def test_steps_that_cannot_be_used_are_refused(parameters: dict[str, Any], why: str, rows: pl.DataFrame) -> None:
    with pytest.raises(DeclarationError, match=why):
        train(replace(SPEC, estimator="sklearn", parameters=parameters), rows, threads=1)


def test_steps_of_foreign_types_is_not_opened(rows: pl.DataFrame, tmp_path: Path) -> None:
    import skops.io

    folder = train(REGRESSION, rows, threads=1).save(tmp_path / "model")
    (folder / "model.skops").write_bytes(skops.io.dumps(_Foreign()))
    schema = json.loads((folder / "schema.json").read_text())
    schema["sha256"]["model.skops"] = hashlib.sha256((folder / "model.skops").read_bytes()).hexdigest()
    (folder / "schema.json").write_text(json.dumps(schema))
    with pytest.raises(ModelRefused, match="_Foreign, which could run code"):
        load(folder)


class _Foreign:
    def __init__(self) -> None:
        self.value = 1


def test_mlflow_loads_what_is_none_of_its_flavours(
    model: Model, spec: ModelSpec, rows: pl.DataFrame, tmp_path: Path
) -> None:
    from ml_platform.stores.tracking import Tracking

    tracking = Tracking(f"sqlite:///{tmp_path}/mlflow.db", (tmp_path / "artifacts").as_uri())
    if spec.estimator not in ("blend", "sklearn"):
        pytest.skip("one of MLflow's own flavours")
    version = tracking.register(
        "late",
        model.save(tmp_path / "model"),
        estimator=spec.estimator,
        run_name="r",
        parameters={},
        metrics={},
        tags={},
    )
    import mlflow

    loaded = mlflow.pyfunc.load_model(version.folder_uri)
    matrix = model.encoding.frame_matrix(rows.head(50))
    assert np.array_equal(loaded.predict(matrix), model.predict_matrix(matrix))


def test_nulls_and_unseen_values_are_missing_and_answered(model: Model) -> None:
    nothing = dict.fromkeys(model.encoding.inputs)
    unseen = {**nothing, "line": "unseen"}
    answers = model.predict_rows([nothing, unseen])
    assert np.isfinite(answers).all()
    assert answers[0] == answers[1]


def test_a_missing_input_is_named(model: Model, rows: pl.DataFrame) -> None:
    with pytest.raises(ModelRefused, match="by_stop__a, which the rows lack"):
        model.predict(rows.drop("by_stop__a"))
    request = dict.fromkeys(model.encoding.inputs)
    del request["by_stop__a"]
    with pytest.raises(ModelRefused, match="by_stop__a, which the rows lack"):
        model.predict_rows([request])
    with pytest.raises(ModelRefused, match="is no number"):
        model.predict_rows([{**request, "by_stop__a": "north"}])


def test_a_damaged_folder_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="holds no model"):
        load(tmp_path)
    folder = model.save(tmp_path / "model")
    file = folder / type(model).file
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelRefused, match=file.name):
        load(folder)
    (folder / "schema.json").write_text("{")
    with pytest.raises(ModelRefused, match="holds no model"):
        load(folder)


def test_a_stored_network_does_not_say_where_the_code_lay(rows: pl.DataFrame, tmp_path: Path) -> None:
    """Else the same network, made again by an installation in another folder, would have other bits."""
    train(NETWORK, rows, threads=1).save(tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        assert [name for name in archive.namelist() if b"torch_layers.py" in archive.read(name)] == []


def test_trees_are_stored_as_text(model: Model, spec: ModelSpec, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "model")
    if spec.estimator == "lightgbm":
        assert (folder / "model.txt").read_text().startswith("tree\n")
    members = {"member-0", "member-1"} if spec.estimator == "blend" else set()
    assert {path.name for path in folder.iterdir()} == {"schema.json", type(model).file, *members}


@pytest.mark.parametrize("place", ["weights_config.json", "sample_inputs/model.pt", "weights/weight_0"])
def test_a_network_that_hides_a_pickle_is_not_opened(place: str, rows: pl.DataFrame, tmp_path: Path) -> None:
    import torch

    folder = train(NETWORK, rows, threads=1).save(tmp_path / "model")
    archive = folder / "model.pt2"
    with zipfile.ZipFile(archive) as opened:
        records = {name: opened.read(name) for name in opened.namelist()}
    name = next(name for name in records if name.endswith(place))
    if place == "weights/weight_0":
        records[name.replace("weight_0", "custom_obj_0")] = b"."
    elif place.endswith("json"):
        records[name] = records[name].replace(b'"use_pickle": false', b'"use_pickle": true', 1)
    else:
        buffer = io.BytesIO()
        torch.save(_Trap(), buffer)
        records[name] = buffer.getvalue()
    with zipfile.ZipFile(archive, "w") as changed:
        for record, content in records.items():
            changed.writestr(record, content)
    schema = json.loads((folder / "schema.json").read_text())
    schema["sha256"]["model.pt2"] = hashlib.sha256(archive.read_bytes()).hexdigest()
    (folder / "schema.json").write_text(json.dumps(schema))
    with pytest.raises(ModelRefused, match="holds a pickle"):
        load(folder)
    assert not _Trap.sprung


class _Trap:
    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (_Trap, "sprung", True))


def test_too_little_to_train_on_is_said(spec: ModelSpec, rows: pl.DataFrame) -> None:
    with pytest.raises(TooFewLabels, match="fewer than two classes"):
        train(spec, rows.filter(label=0), threads=1)
    with pytest.raises(TooFewLabels, match="no labelled rows"):
        train(spec, rows.clear(), threads=1)


def test_a_network_refuses_a_parameter_it_does_not_have(rows: pl.DataFrame) -> None:
    with pytest.raises(DeclarationError, match="no parameter num_leaves"):
        train(replace(NETWORK, parameters={"num_leaves": 3}), rows, threads=1)


def test_training_modules_load_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys, ml_platform.training.estimators, ml_platform.training.lightgbm_trees, "
        "ml_platform.training.torch_network, ml_platform.metrics, ml_platform.stores.tracking; "
        "print([m for m in ('dagster', 'torch', 'lightgbm', 'mlflow', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
