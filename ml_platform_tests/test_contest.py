"""Several models compete for one's place, through the assets themselves."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from ml_platform import asset_keys
from ml_platform.evaluation.contest import check_contests
from ml_platform.serving.aliases import look
from ml_platform.spec import DeclarationError, ModelSpec, NoChampion, UnknownName, scikit
from ml_platform.training.estimators import load
from ml_platform.training.steps import read_set
from ml_platform_tests.test_evaluation import House, made_house, told
from ml_platform_tests.test_training import SPEC, START

pytestmark = pytest.mark.long

HOLDER = replace(SPEC, policy="late", gate=replace(SPEC.gate, min_rows=150, resamples=200))
CHALLENGER = replace(SPEC, challenges="late_trees")
# The truth of this world is a logistic regression, so that it wins is no chance.
LINE = replace(
    CHALLENGER,
    name="late_line",
    estimator="sklearn",
    parameters=scikit(("sklearn.impute.SimpleImputer", {}), ("sklearn.linear_model.LogisticRegression", {})),
)
FEWER = replace(CHALLENGER, name="late_fewer", views=("by_stop",), train_window=None)
NEVER = replace(CHALLENGER, name="late_never")
NOW = START + timedelta(days=45)
CONTEST = dg.AssetSelection.assets(asset_keys.contest("late_trees"))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The holder has a champion of a fortnight ago; two of three challengers are trained on the newest rows."""
    home = tmp_path_factory.mktemp("contest")
    made = made_house(home, HOLDER, LINE, FEWER, NEVER)

    def trained(*names: str) -> dg.AssetSelection:
        keys = [key(name) for name in names for key in (asset_keys.training_set, asset_keys.model)]
        return dg.AssetSelection.assets(*keys)

    assert made.at(NOW - timedelta(days=14), trained("late_trees")).success
    with pytest.raises(NoChampion, match="late_trees has no champion, so there is no place to compete for"):
        made.at(NOW - timedelta(days=14), CONTEST)
    made.tracking.promote("late_trees", 1)
    assert made.at(NOW, trained("late_trees", "late_line", "late_fewer")).success
    yield made
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def held(house: House) -> dg.ExecuteInProcessResult:
    return house.at(NOW, CONTEST)


def test_the_best_that_passes_the_gate_becomes_a_version_of_the_holder(
    house: House, held: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    made = told(held, asset_keys.contest("late_trees"))
    assert made["winner"] == "late_line v1"
    assert made["entered_as"] == 3
    assert "(late_never never trained)" in made["reason"]
    names = [record.data["candidate"] for record in made["candidates"].records]
    assert names[0] == "late_line v1"  # the best first
    assert sorted(names) == ["late_fewer v1", "late_line v1", "late_trees v2"]
    (check,) = held.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("somebody_wins", True)
    entered = house.tracking.version("late_trees", 3)
    assert entered.tags["entered_from"] == "late_line v1"
    assert entered.tags["trained_until"] == house.tracking.version("late_line", 1).tags["trained_until"]
    holdout = read_set(house.lake, HOLDER).filter(part="holdout")
    original = load(house.tracking.download(house.tracking.version("late_line", 1), tmp_path))
    copied = load(house.tracking.download(entered, tmp_path))
    np.testing.assert_array_equal(copied.predict(holdout), original.predict(holdout))


def test_the_ledger_lets_it_be_deployed_and_says_where_it_came_from(
    house: House, held: dg.ExecuteInProcessResult
) -> None:
    judged = house.ledger.last("gate", "late_trees")
    assert judged is not None
    assert (judged.body["version"], judged.body["champion"], judged.body["state"]) == (3, 1, "pass")
    assert judged.body["reason"].startswith("it won a contest of 3, as late_line v1: it beats the champion by +")
    assert judged.body["contest"]["late_fewer v1"] == "fail"
    training = house.ledger.last("training", "late_trees")
    assert training is not None
    told_of = dict(training.body)
    (winner,) = house.ledger.entries("training", "late_line")
    assert told_of.pop("files") == winner.body["files"]  # what is loaded must be these files
    assert told_of == {"version": 3, "decision": 0, "entered_from": "late_line v1"}
    challenger = house.tracking.challenger("late_trees")
    assert challenger is not None
    assert challenger.version == 3
    assert look(house.tracking, house.ledger, "late_trees", NOW).verdict.reason.count("challenger") == 0


def test_of_several_each_has_to_be_surer(house: House, held: dg.ExecuteInProcessResult) -> None:
    judged = house.ledger.last("gate", "late_trees")
    assert judged is not None
    assert "93% is asked" in judged.body["reason"]  # 80 % of one alone; the risk is shared by three


def test_the_same_contest_again_enters_nobody_twice(house: House, held: dg.ExecuteInProcessResult) -> None:
    before = len(house.ledger.entries("gate", "late_trees"))
    again = house.at(NOW, CONTEST)
    assert told(again, asset_keys.contest("late_trees"))["entered_as"] == 3
    assert len(house.tracking.versions("late_trees")) == 3
    assert len(house.ledger.entries("gate", "late_trees")) == before


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"challenges": "late_tree"}, UnknownName, "did you mean late_trees"),
        ({"views": ("by_stop", "by_hand")}, DeclarationError, "with by_hand, which the rows of late_trees lack"),
        ({"task": replace(SPEC.task, lead=timedelta(hours=9))}, DeclarationError, "has another task"),
        ({"policy": "late"}, DeclarationError, "may have no policy of its own"),
        ({"challenges": "late_line"}, DeclarationError, "late_line may challenge nobody"),
    ],
)
def test_a_challenger_that_could_not_take_the_place_stops_the_definitions(
    house: House, changed: dict[str, Any], error: type[DeclarationError], says: str
) -> None:
    odd: ModelSpec = replace(CHALLENGER, name="odd", **changed)
    project = replace(house.project, models={**house.project.models, "odd": odd})
    with pytest.raises(error, match=says):
        check_contests(project)
