"""The gate, the report, and the way from the lake to a judged version through the assets themselves."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from ml_platform import asset_keys, metrics
from ml_platform.evaluation.assets import evaluation_assets
from ml_platform.evaluation.comparison import fresh
from ml_platform.evaluation.criteria import beats
from ml_platform.resources.bound import bound
from ml_platform.resources.profiles import Profile
from ml_platform.spec import (
    GatePolicy,
    ModelSpec,
    Project,
    RetrainPolicy,
    Slice,
    SourceTable,
    StateError,
    TooFewLabels,
    Verdict,
)
from ml_platform.spec.manifests import SetManifest
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_wants import Answers, heard_now
from ml_platform.stores.tracking import Tracking
from ml_platform.training.assets import by_hand_jobs, training_assets
from ml_platform.training.feature_record import read_record, record_of
from ml_platform.training.manifest import bounds, read_manifest
from ml_platform.training.steps import gathered_for, gathered_from, note_gathering, read_set
from ml_platform.training.training_set import content_hash
from ml_platform_tests.test_training import SPEC, START, VIEWS, world_of

MADE_OF = SetManifest(
    gathered_at=START.isoformat(), tables={}, declared="", rows={}, content_hash="none", label_maturity=1.0, bounds={}
)
SLICES = {"line": Slice(by=pl.col("line"), min_rows=50), "hour": Slice(by=pl.col("happens_at").dt.hour(), bands=(12,))}
POLICY = GatePolicy(min_rows=200, resamples=400)


def scored(rows: int = 1400, days: int = 7, skill: float = 1.0) -> pl.DataFrame:
    """Rows with a champion that knows half and a challenger that knows ``skill`` of the truth (in log-odds)."""
    draw = np.random.default_rng(11)
    odds = draw.normal(-1, 1.5, rows)
    chance = 1 / (1 + np.exp(-odds))
    return pl.DataFrame(
        {
            "happens_at": [START + timedelta(days=days * n / rows) for n in range(rows)],
            "day": [date(2024, 3, 1) + timedelta(days=days * n // rows) for n in range(rows)],
            "label": (draw.random(rows) < chance).astype(np.int8),
            "challenger": 1 / (1 + np.exp(-(skill * odds - (1 - skill)))),
            "champion": 1 / (1 + np.exp(-(0.5 * odds - 0.5))),
        }
    )


def verdict_on(rows: pl.DataFrame, policy: GatePolicy = POLICY, *, rival: str = "champion") -> Verdict:
    told = (rows["label"], rows["day"], policy, 1)
    return beats(rows["challenger"], rows[rival], *told, name=f"the {rival}", min_gain=policy.min_gain)


def test_a_better_challenger_passes_and_says_by_how_much() -> None:
    rows = scored()
    found = verdict_on(rows)
    assert found.state == "pass"
    gain = metrics.log_loss(rows["label"], rows["champion"]) - metrics.log_loss(rows["label"], rows["challenger"])
    assert found.measures["gain"] == pytest.approx(gain)
    assert f"beats the champion by {gain:+.4f} log-loss" in found.reason
    assert "on 1400 rows of 7 days" in found.reason


def test_an_equal_or_worse_one_fails() -> None:
    rows = scored()
    same = verdict_on(rows.with_columns(challenger="champion"))
    assert same.state == "fail"
    assert "does not beat the champion: the gain is +0.0000" in same.reason
    assert verdict_on(rows.with_columns(challenger="champion", champion="challenger")).state == "fail"
    gain = float(verdict_on(rows).measures["gain"])
    assert verdict_on(rows, replace(POLICY, min_gain=gain * 2)).state == "fail"


def test_too_little_is_unknown_and_no_pass() -> None:
    rows = scored()
    found = verdict_on(rows, replace(POLICY, min_rows=1401))
    assert (found.state, found.passed) == ("unknown", False)
    assert found.reason == "only 1400 fresh labelled rows, 1401 are needed to judge"
    assert "on one day" in verdict_on(rows.with_columns(day=date(2024, 3, 1))).reason
    assert "all 1400 fresh labels are 0" in verdict_on(rows.with_columns(label=0)).reason
    assert verdict_on(rows.clear()).state == "unknown"


def test_a_champion_is_not_judged_on_what_it_learned_from() -> None:
    rows = scored()
    until = rows["happens_at"][700]
    assert fresh(rows, until)["happens_at"].min() > until
    assert fresh(rows, until).height == 699
    assert fresh(rows, None).equals(rows)


@dataclass(frozen=True)
class House:
    project: Project
    profile: Profile
    resources: dict[str, Any]
    assets: list[dg.AssetsDefinition]

    @property
    def lake(self) -> Lake:
        found: Lake = self.resources["lake"]
        return found

    @property
    def tracking(self) -> Tracking:
        found: Tracking = self.resources["tracking"]
        return found

    @property
    def ledger(self) -> Ledger:
        found: Ledger = self.resources["ledger"]
        return found

    def at(self, moment: datetime, selection: dg.AssetSelection | None = None) -> dg.ExecuteInProcessResult:
        clock: Clock = self.resources["clock"]
        clock.set(moment)
        asked = selection or dg.AssetSelection.all() - dg.AssetSelection.key_prefixes(["ablations"], ["contests"])
        return dg.materialize(self.assets, resources=self.resources, selection=asked)


def _never(start: datetime, end: datetime) -> pl.DataFrame:
    raise AssertionError("nothing is read from a source here")


def made_house(home: Path, *models: ModelSpec) -> House:
    """A project of these models on a lake that another stage filled."""
    world = world_of(70, rows=3500)
    tables = {
        name: SourceTable(
            name=name, read=_never, columns=rows.schema, key=("trip",), description="", known_at_source="given"
        )
        for name, rows in world.items()
    }
    project = Project(
        name="trips",
        features="feature_defs",
        timezone="America/New_York",
        starts=date(2024, 2, 28),
        ready_from=date(2024, 3, 2),
        serves_from=date(2024, 4, 1),
        replay_until=date(2024, 4, 30),
        tables=tables,
        views={view.name: view for view in VIEWS},
        models={spec.name: spec for spec in models},
        retrain_policies={"late": RetrainPolicy(name="late")},
    )
    profile = Profile.at(home)
    resources = dict(bound(profile, project))
    lake: Lake = resources["lake"]
    for name in tables:
        dated = world[name].with_columns(pl.col("known_at").dt.date().alias("known_date"))
        lake.replace(f"raw/{name}", dated, sorted(set(dated["known_date"])))
    days = dg.DailyPartitionsDefinition("2024-02-28", timezone="America/New_York")
    return House(project, profile, resources, [*training_assets(project, days), *evaluation_assets(project)])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("home")
    yield made_house(home, replace(SPEC, policy="late", slices=SLICES, gate=replace(SPEC.gate, resamples=200)))
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def first(house: House) -> dg.ExecuteInProcessResult:
    house.ledger.write("decision", "late", "2024-03-31", START, {"model": "late_trees", "wanted": 3})
    return house.at(START + timedelta(days=31))


def told(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    (made,) = [m for m in result.asset_materializations_for_node(key.to_python_identifier()) if m.asset_key == key]
    return {name: value.value for name, value in made.metadata.items()}


def test_the_assets_train_register_and_judge_the_first_version(house: House, first: dg.ExecuteInProcessResult) -> None:
    now = START + timedelta(days=31)
    made = told(first, asset_keys.training_set("late_trees"))
    rows = house.lake.scan("training_sets/late_trees").collect()
    assert made["train_rows"] == rows.filter(part="train").height > 300
    assert made["dagster/row_count"] == rows.height
    assert 0.9 < made["label_maturity"] <= 1
    assert rows["label_known_at"].max() <= now
    assert rows["happens_at"].min() >= datetime(2024, 3, 2, 5, tzinfo=UTC)
    version = house.tracking.version("late_trees", 1)
    assert version.tags["trained_until"] == bounds(rows)["trained_until"]
    assert datetime.fromisoformat(version.tags["holdout_from"]) >= now - timedelta(days=7)
    assert version.tags["content_hash"] == made["content_hash"]
    assert version.tags["consumed_decision"] == "3"
    assert read_record(house.tracking.download(version, house.profile.home / "files")) == record_of(VIEWS)
    assert told(first, asset_keys.model("late_trees"))["version"] == 1
    (training,) = house.ledger.entries("training", "late_trees")
    files = house.tracking.download(version, house.profile.home / "files")
    manifest = read_manifest(files)
    body = {"version": 1, "decision": 3, "manifest": manifest.digest}
    told_of = dict(training.body)
    digests, heard = told_of.pop("files"), told_of.pop("heard")
    assert heard == 1  # the line of the ledger up to which its training set could answer
    assert digests.keys() >= {"features.json", "manifest.json", "model.txt", "schema.json"}
    assert {name: sha256((files / name).read_bytes()).hexdigest() for name in digests} == digests
    assert (training.key, training.at, told_of) == (first.run_id, now, body)
    assert manifest.training_set.rows == {"holdout": made["holdout_rows"], "train": made["train_rows"]}
    assert {name: table.version for name, table in manifest.training_set.tables.items()} == made["read_versions"]
    judged = house.ledger.last("gate", "late_trees")
    assert judged is not None
    assert (judged.key, judged.body["state"], judged.body["champion"]) == ("v1", "pass", None)
    assert "the first version; it beats the constant" in judged.body["reason"]
    (check,) = first.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.description) == ("beats_champion", True, judged.body["reason"])
    run = house.tracking._client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["holdout_auc"] == judged.body["measures"]["auc"] > 0.7
    assert run.data.tags["dagster.run_id"] == first.run_id
    made = told(first, asset_keys.evaluation("late_trees"))
    criteria = {name: found["state"] for name, found in judged.body["criteria"].items()}
    assert criteria == dict.fromkeys(["sane", "champion", "baselines", "leak", "latency"], "pass")
    assert made["gate: champion"] == f"pass: {judged.body['reason']}"
    assert made["model_card"].startswith("# late_trees version 1")
    assert set(made) >= {"Calibration", "Log-loss by day", "ROC, precision-recall, lift", "logistic_auc"}
    files = {item.path for item in house.tracking._client.list_artifacts(version.run_id, "evaluation")}
    assert files == {"evaluation/late_trees-v1.html", "evaluation/model_card.md", "evaluation/plots"}
    plots = {item.path for item in house.tracking._client.list_artifacts(version.run_id, "evaluation/plots")}
    assert "evaluation/plots/roc_precision_recall_lift.png" in plots
    page = house.profile.reports_path / "late_trees-v1.html"
    assert judged.body["reason"] in page.read_text()


def test_mlflow_and_dagster_lead_to_each_other(house: House, first: dg.ExecuteInProcessResult) -> None:
    version = house.tracking.version("late_trees", 1)
    run = house.tracking._client.get_run(version.run_id)
    for asset in (asset_keys.model("late_trees"), asset_keys.evaluation("late_trees")):
        made = told(first, asset)
        assert made["mlflow_run"] == (
            f"http://127.0.0.1:3002/#/experiments/{run.info.experiment_id}/runs/{version.run_id}"
        )
        assert made["mlflow_version"] == "http://127.0.0.1:3002/#/models/late_trees/versions/1"
    described = house.tracking._client.get_model_version("late_trees", "1").description
    assert f"(http://127.0.0.1:3001/runs/{first.run_id})" in described
    assert "(http://127.0.0.1:3001/assets/models/late_trees)" in described
    judged = house.ledger.last("gate", "late_trees")
    assert judged is not None
    assert described.startswith(f"pass: {judged.body['reason']}\n")
    assert run.data.tags["mlflow.note.content"] == described
    assert run.data.tags["mlflow.source.name"] == "models/late_trees"
    used = {item.dataset.name: item for item in run.inputs.dataset_inputs}
    assert set(used) == {"training_sets/late_trees (train)", "training_sets/late_trees (holdout)"}
    rows = house.lake.scan("training_sets/late_trees").collect()
    for part in ("train", "holdout"):
        logged = used[f"training_sets/late_trees ({part})"].dataset
        assert logged.digest == content_hash(rows)[:36]
        assert json.loads(logged.profile)["num_rows"] == rows.filter(part=part).height
        assert [column["name"] for column in json.loads(logged.schema)["mlflow_colspec"]] == rows.columns
    curve = house.tracking._client.get_metric_history(version.run_id, "stopping_log_loss_by_round")
    lowest = min(curve, key=lambda point: point.value)
    assert (lowest.step, lowest.value) == (int(run.data.params["rounds"]), run.data.metrics["stopping_log_loss"])


def test_a_model_answers_the_decision_that_its_training_set_was_gathered_for(tmp_path: Path) -> None:
    """A retraining that is decided between the two is not consumed by rows from before it."""
    ledger = Ledger(tmp_path / "ledger.db")
    assert gathered_for(ledger, SPEC) == Answers()
    ledger.write("decision", "late", "1", START, {"model": SPEC.name, "wanted": 1})
    ledger.write("decision", "others", "1", START, {"model": "another", "wanted": 7})
    note_gathering(ledger, SPEC, "run 1", START, heard_now(ledger, SPEC.name), MADE_OF)
    ledger.write("decision", "late", "2", START, {"model": SPEC.name, "wanted": 2})
    assert gathered_for(ledger, SPEC) == Answers(decision=1, heard=2)
    note_gathering(ledger, SPEC, "run 2", START, heard_now(ledger, SPEC.name), MADE_OF)
    assert gathered_for(ledger, SPEC) == Answers(decision=2, heard=4)


def test_a_training_set_that_is_not_what_was_gathered_is_not_trained_on(tmp_path: Path) -> None:
    """As a kill between the two writes, or somebody's hand, leaves it."""
    ledger, rows = Ledger(tmp_path / "ledger.db"), pl.DataFrame({"value": [1, 2]})
    with pytest.raises(StateError, match="nothing says what training_sets/late_trees was made of"):
        gathered_from(ledger, SPEC, rows)
    note_gathering(ledger, SPEC, "run 1", START, Answers(), replace(MADE_OF, content_hash=content_hash(rows)))
    assert gathered_from(ledger, SPEC, rows).gathered_at == START.isoformat()
    with pytest.raises(StateError, match="does not hold the rows that were gathered"):
        gathered_from(ledger, SPEC, rows[::-1])


def test_a_second_version_meets_the_champion_on_the_same_rows(house: House, first: dg.ExecuteInProcessResult) -> None:
    house.tracking.promote("late_trees", 1)
    result = house.at(START + timedelta(days=60))
    assert result.success
    judged = house.ledger.last("gate", "late_trees")
    assert judged is not None
    assert (judged.key, judged.body["version"], judged.body["champion"]) == ("v2", 2, 1)
    assert judged.body["state"] in ("pass", "fail")
    assert {"auc", "champion_auc", "gain", "confidence"} <= set(judged.body["measures"])
    assert "the champion by" in judged.body["reason"]
    assert judged.body["criteria"]["slices"]["state"] == "pass"
    (check,) = result.get_asset_check_evaluations()
    assert check.passed == (judged.body["state"] == "pass")
    assert check.severity is dg.AssetCheckSeverity.WARN
    held = house.lake.scan("training_sets/late_trees").filter(pl.col("part") == "holdout").collect()
    assert judged.body["measures"]["rows"] == held.height
    challenger = house.tracking.challenger("late_trees")
    assert challenger is not None
    assert challenger.version == 2


def test_an_ablation_is_made_when_asked_for_and_changes_nothing(house: House, first: dg.ExecuteInProcessResult) -> None:
    before = len(house.tracking.versions("late_trees"))
    key = asset_keys.ablation("late_trees")
    made = told(house.at(START + timedelta(days=60), dg.AssetSelection.assets(key)), key)
    assert [record.data["without"] for record in made["without"].records][:2] == ["(everything)", "by_line"]
    assert "data:image/png" in made["lost"]
    assert len(house.tracking.versions("late_trees")) == before


def test_too_few_labels_stop_the_training_with_counts(house: House, first: dg.ExecuteInProcessResult) -> None:
    with pytest.raises(TooFewLabels, match=r"late_trees has \d+ labelled rows to train on .* \(300 are needed\)"):
        house.at(START + timedelta(days=9))


def test_a_person_can_train_by_hand_and_the_mlflow_run_ends(house: House, first: dg.ExecuteInProcessResult) -> None:
    (job,) = by_hand_jobs(house.project)
    definitions = dg.Definitions(jobs=[job], resources=house.resources)
    before = len(house.tracking.versions("late_trees"))

    def launch(model: str, **parameters: Any) -> dg.ExecuteInProcessResult:
        config = {"ops": {"train_and_measure": {"config": {"model": model, "parameters": parameters}}}}
        return definitions.get_job_def("train_by_hand").execute_in_process(config, raise_on_error=False)

    assert launch("late_trees", num_leaves=4).success
    assert not launch("late_tree").success
    client = house.tracking._client
    runs = client.search_runs([house.tracking.experiment("by_hand")], order_by=["attributes.start_time"])
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    assert runs[0].data.params["num_leaves"] == "4"
    assert runs[0].data.metrics["holdout_auc"] > 0.6
    assert {item.path for item in client.list_artifacts(runs[0].info.run_id, "model")} >= {"model/model.txt"}
    assert len(house.tracking.versions("late_trees")) == before
    # Of the set that stands, as the run of a version that was made of it says, too.
    made = read_set(house.lake, house.project.models["late_trees"])
    used = runs[0].inputs.dataset_inputs
    assert {(each.dataset.name, each.tags[0].value) for each in used} == {
        ("training_sets/late_trees (train)", "training"),
        ("training_sets/late_trees (holdout)", "evaluation"),
    }
    table = {"path": house.lake.uri("training_sets/late_trees")}
    table["delta_table_version"] = house.lake.version("training_sets/late_trees")
    for each in used:
        assert each.dataset.digest == content_hash(made)[:36]
        assert json.loads(each.dataset.source) == table
    of_version = client.get_run(house.tracking.versions("late_trees")[-1].run_id).inputs.dataset_inputs
    assert {str(each.dataset) for each in used} == {str(each.dataset) for each in of_version}


@pytest.mark.slow
def test_the_fixed_split_keeps_its_floors() -> None:
    from ml_platform.bench.split import measure
    from ml_platform.resources.projects import load_project

    project = load_project("ml_platform.projects.flights")
    constant, static, everything, *others = measure(project, project.models["delay_lightgbm"], threads=2)
    assert constant.measures["auc"] == 0.5
    assert everything.measures["auc"] >= 0.755
    assert everything.measures["log_loss"] <= 0.458
    floors = {arm.name: arm.measures for arm in others}
    assert floors["delay_torch"]["auc"] >= 0.748
    assert floors["delay_blend"]["auc"] >= 0.759
    assert floors["delay_blend"]["log_loss"] <= 0.455
    assert everything.measures["auc"] - static.measures["auc"] >= 0.10
