"""The shipped project through the command that the README begins with: the history, and the first day."""

import json
from datetime import date
from pathlib import Path

import pytest

from ml_platform.definitions import house
from ml_platform.replay.driver import bootstrapped
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform_tests.replay_world import TripsHome

FLIGHTS = "ml_platform.projects.flights"
FIRST = date(2013, 4, 1)
MINUTES = 15 * 60  # on a machine that is busy with other tests


def test_what_somebody_has_to_ask_for_is_not_in_the_bootstrap(tmp_path: Path) -> None:
    project = load_project(FLIGHTS)
    graph = house(Profile.at(tmp_path, project=FLIGHTS), clamp=False).resolve_asset_graph()
    made = {key.to_user_string() for key in bootstrapped(graph, project)}
    assert {f"features/{name}" for name in project.views} | {f"raw/{name}" for name in project.tables} < made
    assert {"training_sets/delay_lightgbm", "models/delay_lightgbm", "evaluations/delay_lightgbm"} < made
    asked_for = {key.to_user_string() for key in graph.materializable_asset_keys} - made
    assert {key for key in asked_for if key.split("/")[0] in ("raw", "features", "labels", "services")} == set()
    assert {"studies/delay_lightgbm", "contests/delay_lightgbm", "ablations/delay_lightgbm"} < asked_for
    assert {f"models/{name}" for name in ("delay_torch", "delay_blend", "delay_expanding")} < asked_for


@pytest.mark.long
def test_the_shipped_project_bootstraps_and_answers_its_first_day(tmp_path: Path) -> None:
    home = TripsHome(tmp_path / "home")
    target = tmp_path / "summary.json"
    sitting = home.start("run", "--until", str(FIRST), "--json", str(target), project=FLIGHTS)
    done = sitting.wait(MINUTES)
    assert done.code == 0, done.said[-6000:]
    assert sitting.service_ended()
    summary = json.loads(target.read_text())
    assert (summary["first_day"], summary["last_day"], summary["days"]) == (str(FIRST), str(FIRST), 1)
    assert summary["predictions"] > 700
    assert summary["predictions_doubled"] == 0
    assert summary["labels"] > 600
    assert summary["values_compared"] > 5_000
    assert summary["values_mismatched"] == 0
    assert (summary["champion"], summary["versions"], summary["failures"]) == ("1", 1, [])
    assert summary["auc"] > 0.65
    for page in ("replay.html", "delay_lightgbm-v1.html"):
        assert (home.path / "reports" / page).stat().st_size > 50_000
