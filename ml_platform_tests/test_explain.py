"""`ml-platform explain`, on answers that the trips' real service gave, and what it says where it cannot."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from ml_platform.cli import main
from ml_platform.evaluation.answered import answered
from ml_platform.resources.projects import load_project
from ml_platform.serving.bodies import PredictRequest
from ml_platform.serving.desk import Desk
from ml_platform.spec import ModelSpec, NotExplained, UnknownName, blend_of
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION
from ml_platform.stores.forgotten import forgotten_in
from ml_platform.stores.prediction_log import Prediction, PredictionLog
from ml_platform.stores.tracking import Tracking
from ml_platform.training.estimators import train
from ml_platform.training.feature_record import RECORD_FILE, write_record
from ml_platform.training.steps import read_set
from ml_platform_tests.replay_world import PACKAGE, TripsHome
from ml_platform_tests.trips.world import SHIFTS_ON

TRIP = "20240308-40"
TABLE = "predictions/desk"
DAY = SHIFTS_ON - timedelta(days=1)


def said(home: TripsHome, *words: str) -> Result:
    env = {"ML_PLATFORM_HOME": str(home.path), "ML_PLATFORM_PROJECT": PACKAGE}
    return CliRunner().invoke(main, ["explain", *words], env=env)


def refused(home: TripsHome, *words: str) -> str:
    done = said(home, *words)
    assert (done.exit_code, done.stdout) == (1, ""), done.output
    return done.stderr


def found(home: TripsHome, trip: str = TRIP) -> dict[str, Any]:
    done = said(home, trip, "--json")
    assert done.exit_code == 0, done.output
    plain: dict[str, Any] = json.loads(done.stdout)
    return plain


def logged(home: TripsHome, trip: str = TRIP) -> dict[str, Any]:
    return home.lake.scan(TABLE).filter(pl.col("prediction_id") == trip).collect().row(0, named=True)


def changed(home: TripsHome, **values: Any) -> None:
    """Other values in the row of the trip."""
    rows = home.lake.scan(TABLE).filter(pl.col(PARTITION) == logged(home)[PARTITION]).collect()
    is_it = pl.col("prediction_id") == TRIP
    given = [
        pl.when(is_it).then(pl.lit(value, rows.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    ]
    home.lake.replace(TABLE, rows.with_columns(given), [logged(home)[PARTITION]])


def files_of_the_model(home: TripsHome) -> Path:
    (record,) = (home.path / "mlflow").rglob(RECORD_FILE)
    return record.parent


def test_an_answer_is_taken_apart_into_what_was_served(home: TripsHome) -> None:
    row, told = logged(home), found(home)
    assert (told["model"], told["version"], told["service"], told["estimator"]) == ("late", 1, "desk", "lightgbm")
    assert told["probability"] == told["recomputed"] == row["probability"]
    assert told["asked_at"] == row["asked_at"].isoformat()
    sent = json.loads(row["entities"])
    values = {each["name"]: each["value"] for each in told["inputs"]}
    assert values == {"line": sent["line"], **dict(zip(row["feature_names"], row["features"], strict=True))}
    views = {each["name"]: (each["view"], each["view_version"], each["changed"]) for each in told["inputs"]}
    assert views["line"] == (None, None, None)
    assert {view for view, *_ in views.values()} == {None, "planned", "line_past", "leaving"}
    assert all(len(version) == 8 and change is None for view, version, change in views.values() if view)
    assert len({version for _, version, _ in views.values()}) == 4
    parts = told["contributions"]
    assert parts["sum"] == pytest.approx(sum(each["contribution"] for each in told["inputs"]))
    assert parts["base"] + parts["sum"] == pytest.approx(parts["raw"], abs=1e-9)
    assert (told["problems"], told["without"]) == ([], None)
    assert told["found_in"].startswith(f"{TABLE}, version ")


def test_people_read_the_largest_first(home: TripsHome) -> None:
    done = said(home, TRIP)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        f"{TRIP}: probability {logged(home)['probability']:.6g}, by version 1 of late (lightgbm)"
    )
    assert "found in predictions/desk, version" in lines[1]
    assert "training_set training_sets/late@" in lines[2]
    head = lines.index(next(line for line in lines if line.startswith("input ")))
    end = lines.index("", head)
    assert "baseline" not in lines[head]  # the trees have none
    sizes = [abs(float(line.split()[-1])) for line in lines[head + 1 : end]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == len(logged(home)["features"]) + 1
    assert lines[end + 1].startswith("base ")
    assert lines[-1].endswith("again, to the bit")


def test_what_is_not_in_the_lake_yet_is_found_in_the_log(home: TripsHome) -> None:
    before = found(home)
    shutil.rmtree(Path(home.lake.uri(TABLE)))
    after = found(home)
    assert after["found_in"] == str(home.profile.log_path / TABLE)
    assert {**after, "found_in": ""} == {**before, "found_in": ""}


def test_an_id_that_nobody_answered_is_told_with_where_was_looked(home: TripsHome) -> None:
    text = refused(home, "20240308-4")
    assert "NotExplained: there is no prediction '20240308-4' in the table predictions/desk (asked from 2024-" in text
    assert f"to {DAY}) and the log {home.profile.log_path / TABLE} (asked from 2024-" in text
    assert "UnknownName: there is no service named 'dsk'; did you mean desk?" in refused(home, TRIP, "--service", "dsk")
    record = forgotten_in(home.path)
    record.remember("trip", record.digest("trip", TRIP), Clock.wall())
    assert f"{TRIP} was forgotten, and the prediction with it" in refused(home, TRIP)
    assert "what was asked about a forgotten entity is gone, too" in refused(home, "20240308-4")


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    text = refused(TripsHome(tmp_path / "home"), TRIP)
    assert "in the table predictions/desk (nothing yet) and the log" in text


def test_a_vector_that_does_not_give_the_answer_fails(home: TripsHome) -> None:
    changed(home, probability=0.5)
    done = said(home, TRIP)
    assert done.exit_code == 1
    assert (
        "and not the 0.5 that was answered: the log, or the files of late version 1, are not what they" in done.stdout
    )
    assert "again, to the bit" not in done.stdout
    assert len(json.loads(said(home, TRIP, "--json").stdout)["problems"]) == 1


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda home: changed(home, model_version="7"), "by version 7 of late, which is gone from the registry"),
        (
            lambda home: changed(home, features=[], feature_names=[]),
            "does not say what it was given for planned__miles",
        ),
        (lambda home: changed(home, features=None), "does not say what it was given for planned__miles"),
        (
            lambda home: changed(home, entities="{}"),
            "does not say what it was given for line: without the whole vector",
        ),
        (
            lambda home: shutil.rmtree(files_of_the_model(home)),
            "cannot be loaded: the files of late version 1 are gone",
        ),
        (
            lambda home: (files_of_the_model(home) / "model.txt").write_text("tree"),
            "cannot be loaded: .*model.txt is not the file that was saved",
        ),
    ],
)
def test_what_is_gone_is_told(home: TripsHome, break_it: Callable[[TripsHome], None], says: str) -> None:
    import re

    break_it(home)
    text = refused(home, TRIP)
    assert f"NotExplained: {TRIP} was answered by version " in text
    assert re.search(says, text), text


def test_a_view_that_is_declared_otherwise_since_is_marked(home: TripsHome) -> None:
    path = files_of_the_model(home) / RECORD_FILE
    before = {each["name"]: each for each in found(home)["inputs"]}
    record = json.loads(path.read_text())
    record["features"]["planned__miles"][0] = "0123456789abcdef"
    path.write_text(json.dumps(record))
    after = {each["name"]: each for each in found(home)["inputs"]}
    assert after["planned__miles"]["changed"] == "is declared otherwise now"
    assert after["planned__miles"]["view_version"] != before["planned__miles"]["view_version"]
    assert {n: e for n, e in after.items() if e["view"] != "planned"} == {
        n: e for n, e in before.items() if e["view"] != "planned"
    }
    assert "(is declared otherwise now)" in said(home, TRIP).stdout
    path.unlink()  # a model of before there were records
    assert "planned@not recorded" in said(home, TRIP).stdout


def test_an_id_under_which_two_services_answered_asks_which(home: TripsHome) -> None:
    project = load_project(PACKAGE)
    two = replace(project, services={**project.services, "other": replace(project.services["desk"], name="other")})
    row, log = logged(home), PredictionLog(home.profile.log_path)
    names = ("prediction_id", "model", "model_version", "asked_at", "as_of", "answered_at", "features")
    told = {name: row[name] for name in names} | {"entities": json.loads(row["entities"])}
    told |= {"feature_names": tuple(row["feature_names"])}
    early = told | {"answered_at": row["answered_at"] - timedelta(hours=1)}
    log.append_predictions("other", DAY, [Prediction(probability=0.25, **told), Prediction(probability=0.125, **early)])
    log.close()
    stores = (home.lake, log, forgotten_in(home.path))
    with pytest.raises(NotExplained, match="was answered by desk and other; say which with --service"):
        answered(two, *stores, TRIP)
    assert answered(two, *stores, TRIP, "desk").probability == row["probability"]
    assert answered(two, *stores, TRIP, "other").probability == 0.125  # the first answer under the id
    with pytest.raises(UnknownName):
        answered(two, *stores, TRIP, "nobody")


NETWORK: dict[str, Any] = {"hidden": (8,), "epochs": 3}
TREES = load_project(PACKAGE).models["late"]
FAMILIES = {
    "torch": replace(TREES, estimator="torch", parameters=NETWORK),
    "blend": replace(
        TREES,
        estimator="blend",
        parameters=blend_of(TREES, replace(TREES, estimator="torch", parameters=NETWORK), weights=(3.0, 1.0)),
    ),
}


def asked(home: TripsHome, spec: ModelSpec) -> tuple[str, float]:
    """A champion of another family, and its answer about a trip of which nobody asked before: the desk's own code."""
    project, tracking = load_project(PACKAGE), Tracking(home.profile.mlflow_uri, home.profile.mlflow_artifacts)
    model = train(spec, read_set(home.lake, spec).filter(part="train"), threads=1)
    folder = model.save(home.path / "draft")
    write_record(folder, project.views_of(spec))
    about: dict[str, Any] = {"parameters": {}, "metrics": {}, "tags": {}, "run_name": "by a test"}
    tracking.promote("late", tracking.register("late", folder, estimator=spec.estimator, **about).version)
    now = Clock(home.profile.clock_path).now()
    trip = home.lake.scan("raw/asked").filter(pl.col("leaves") > now + timedelta(hours=2)).collect().sort("leaves")[0]
    row = {"trip": trip["trip"].item(), "line": trip["line"].item(), "happens_at": trip["leaves"].item().isoformat()}
    desk = Desk.open(home.profile, "desk")
    answer = desk.predict(PredictRequest(rows=[row], asked_at=now.isoformat()), now)
    desk.log.close()
    assert answer.model_version == "2"
    (one,) = answer.predictions
    return one.prediction_id, one.probability


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_of_a_network_or_a_blend_is_taken_apart(home: TripsHome, family: str) -> None:
    trip, probability = asked(home, FAMILIES[family])
    told = found(home, trip)
    assert (told["estimator"], told["version"], told["problems"]) == (family, 2, [])
    assert told["recomputed"] == told["probability"] == probability
    parts = told["contributions"]
    assert parts["scale"] == ("log-odds" if family == "torch" else "probability")
    assert f"{'' if family == 'torch' else '0.25 of torch: '}integrated gradients, " in parts["method"]
    given = [each["contribution"] for each in told["inputs"]]
    assert parts["base"] + sum(given) == pytest.approx(parts["raw"], abs=1e-4)
    raw = parts["raw"]
    assert probability == pytest.approx(1 / (1 + math.exp(-raw)) if family == "torch" else raw, abs=1e-6)
    assert sum(abs(each) > 1e-6 for each in given) > 4  # not one alone for all
    # A number's baseline is its median in training; a category and a missing number have none to move from.
    columns = read_set(home.lake, TREES).filter(part="train")
    for each in told["inputs"][1:]:
        assert each["baseline"] == pytest.approx(columns[each["name"]].median(), rel=1e-6)
        if each["value"] == each["baseline"] and family == "torch":
            assert each["contribution"] == 0
    lines = said(home, trip).stdout.splitlines()
    assert lines[0].endswith(f"by version 2 of late ({family}) behind desk")
    assert lines[-1].endswith("again, to the bit")
