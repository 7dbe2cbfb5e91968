"""MLflow's aliases against the ledger: who moved them past the platform, and what a kill between two steps leaves."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ml_platform.serving.approvals import Word, adopt, approve, reject
from ml_platform.spec import WordRefused
from ml_platform.stores.ledger_kinds import FOUND, PROMOTION, REJECTION, SERVING
from ml_platform.stores.ledger_serving import serving_at
from ml_platform_tests.registry_world import HOUR, MODEL, START, Registry, with_a_champion, with_one_that_waits
from ml_platform_tests.test_home import python

ANN = Word(by="ann", reason="looked at the slices")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return with_a_champion(tmp_path / "home")


@pytest.fixture
def asking(tmp_path: Path) -> Registry:
    return with_one_that_waits(tmp_path / "home")


# Somebody moves an alias in MLflow


def test_an_alias_moved_past_the_platform_is_named_with_what_to_do(registry: Registry) -> None:
    second = registry.train()
    registry.move_by_hand(second)
    registry.judge(second)  # even what would have been promoted
    for hours in (0, 24):
        done = registry.later(hours).deploy()
        assert (done.action, done.champion, done.aliases.state) == ("held", "2", "fail")
        assert done.reason in done.aliases.reason
        assert (
            "alias champion of late was moved past the platform: it is version 2 in MLflow, version 1 is recorded "
            "(line 4, 2024-03-10 04:01 UTC); found at 2024-03-11 04:01 UTC (line 7)" in done.reason
        )
        assert "`ml-platform adopt late 2 --by NAME --reason WHY` keeps it" in done.reason
        assert "`ml-platform adopt late 1 --by NAME --reason WHY` puts version 1 back" in done.reason
        assert dict(done.aliases.measures) == {"champion": "2", "champion_recorded": "1"}
    assert len(registry.ledger.entries(FOUND, MODEL)) == 1
    with pytest.raises(WordRefused, match="first say which champion is right"):
        approve(registry.tracking, registry.ledger, MODEL, second, ANN, registry.at)


@pytest.mark.parametrize("right", [1, 2])
def test_a_person_says_which_version_is_right(registry: Registry, right: int) -> None:
    second = registry.train()
    registry.move_by_hand(second)
    registry.deploy()
    at = registry.later(2)
    with pytest.raises(WordRefused, match="version 3 is neither what was found nor what is recorded"):
        adopt(at.tracking, at.ledger, MODEL, registry.train(), ANN, at.at)
    said = adopt(at.tracking, at.ledger, MODEL, right, ANN, at.at)
    assert adopt(at.tracking, at.ledger, MODEL, right, ANN, at.later().at) == said
    assert at.champion == right
    assert at.deploy().aliases.passed
    lines = at.ledger.about(MODEL, SERVING)
    answered = [serving_at(lines, START + hours * HOUR) for hours in (1, 24, 25, 26)]
    assert [one.champion if one else None for one in answered] == ["1", "2", "2", str(right)]


def test_a_rejected_version_that_was_put_up_by_hand_can_only_be_put_back(asking: Registry) -> None:
    reject(asking.tracking, asking.ledger, MODEL, 2, ANN, asking.at)
    asking.move_by_hand(2)
    assert asking.deploy().action == "held"
    with pytest.raises(WordRefused, match=r"version 2 of late was rejected by ann .*put version 1 back"):
        adopt(asking.tracking, asking.ledger, MODEL, 2, ANN, asking.at)
    adopt(asking.tracking, asking.ledger, MODEL, 1, ANN, asking.at)
    assert asking.champion == 1
    assert asking.deploy().aliases.passed


def test_an_alias_that_was_moved_back_is_right_again_and_the_ledger_tells_both(registry: Registry) -> None:
    registry.move_by_hand(registry.train())
    registry.deploy()
    registry.move_by_hand(1)
    assert registry.later().deploy().aliases.passed
    assert [dict(line.body) for line in registry.ledger.entries(FOUND, MODEL)] == [
        {"alias": "champion", "version": "2", "before": "1"},
        {"alias": "champion", "version": "1", "before": "2"},
    ]
    lines = registry.ledger.about(MODEL, SERVING)
    served = [serving_at(lines, START + hours * HOUR) for hours in (23, 24, 47, 48)]
    assert [one.champion if one else None for one in served] == ["1", "2", "2", "1"]


def test_a_champion_that_was_taken_away_is_missed(registry: Registry) -> None:
    registry.move_by_hand(None)
    done = registry.deploy()
    assert (done.champion, done.action) == (None, "held")
    assert "it is nothing in MLflow, version 1 is recorded" in done.aliases.reason
    assert "keeps it" not in done.aliases.reason
    adopt(registry.tracking, registry.ledger, MODEL, 1, ANN, registry.at)
    assert registry.champion == 1


def test_a_first_champion_by_hand_is_found_too(tmp_path: Path) -> None:
    registry = Registry.fresh(tmp_path / "home")
    registry.move_by_hand(registry.trained_and_judged("fail"))
    done = registry.deploy()
    assert "it is version 1 in MLflow, nothing is recorded; found at" in done.aliases.reason
    adopt(registry.tracking, registry.ledger, MODEL, 1, ANN, registry.at)
    assert registry.deploy().aliases.passed


def test_a_challenger_that_strayed_fails_the_check_and_holds_nothing(registry: Registry) -> None:
    second = registry.trained_and_judged()
    registry.move_by_hand(1, "challenger")
    done = registry.deploy()
    assert (done.action, done.champion) == ("promoted", str(second))
    assert (
        "alias challenger of late is version 1 in MLflow, moved past the platform; version 2 is" in done.aliases.reason
    )
    third = registry.train()
    registry.ledger.write("gate", MODEL, "v3", registry.at, {"version": 3, "state": "fail", "reason": "r"})
    assert registry.deploy().aliases.passed
    files = registry.folder.with_name("home.draft")
    told = {"estimator": "lightgbm", "run_name": "r", "parameters": {}, "metrics": {}, "tags": {}}
    registry.tracking.register(MODEL, files, **told)  # by somebody's notebook
    said = registry.deploy().aliases.reason
    assert f"is version 4 in MLflow, which no training of the platform registered; version {third} is recorded" in said


# Killed between two steps

DEPLOY = """
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.tracking import Tracking
from ml_platform_tests.registry_world import Registry
stop = sys.argv[2]
def wait():
    print("reached", flush=True); sys.stdin.readline()
promote, write = Tracking.promote, Ledger.write
def promoting(self, *told):
    if stop == "before the move": wait()
    promote(self, *told)
    if stop == "behind the move": wait()
def writing(self, kind, *told):
    if stop == f"before {kind}": wait()
    return write(self, kind, *told)
Tracking.promote, Ledger.write = promoting, writing
print(replace(Registry(Path(sys.argv[1])), at=datetime.fromisoformat(sys.argv[3])).deploy().reason)
"""


def deploying(registry: Registry, until: str) -> subprocess.Popen[str]:
    """A process that deploys and stops there."""
    child = python(DEPLOY, registry.folder, until, registry.at.isoformat())
    assert child.stdout is not None
    assert child.stdout.readline() == "reached\n", child.communicate()[1]
    return child


def killed(registry: Registry, place: str) -> None:
    child = deploying(registry, place)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()


@pytest.mark.parametrize("place", ["before alias", "before the move", "behind the move", "before promotion"])
def test_killed_anywhere_the_next_deployment_ends_it(registry: Registry, place: str) -> None:
    registry.trained_and_judged()
    killed(registry, place)
    moved = place in ("behind the move", "before promotion")
    assert registry.champion == (2 if moved else 1)
    assert [line.body["version"] for line in registry.ledger.entries(PROMOTION, MODEL)] == ["1"]

    done = registry.later().deploy()
    assert (done.champion, done.aliases.state, registry.champion) == ("2", "pass", 2)
    (promotion,) = [line for line in registry.ledger.entries(PROMOTION, MODEL) if line.body["version"] == "2"]
    assert promotion.at == (registry.at if moved else registry.later().at)  # when it was moved
    assert registry.ledger.entries(FOUND, MODEL) == []
    assert registry.ledger.verify().passed


@pytest.mark.parametrize("place", ["before the move", "before promotion"])
def test_what_somebody_does_after_a_kill_is_not_taken_for_the_platforms_own(registry: Registry, place: str) -> None:
    registry.trained_and_judged()
    third = registry.train()
    killed(registry, place)
    registry.move_by_hand(third)
    done = registry.later().deploy()
    assert (done.action, done.champion) == ("held", "3")
    assert "it is version 3 in MLflow, version 1 is recorded" in done.reason


def test_a_rejection_that_is_quicker_than_the_move_counts(registry: Registry) -> None:
    """The word falls between the decision and the line that announces the move."""
    registry.trained_and_judged()
    child = deploying(registry, "before alias")
    reject(registry.tracking, registry.ledger, MODEL, 2, ANN, registry.at)
    said, _ = child.communicate("go on\n", timeout=60)
    assert said == "version 2 was rejected meanwhile\n"
    assert registry.champion == 1
    registry.move_by_hand(2)  # and the line that announced the move does not make it the platform's own
    done = registry.deploy()
    assert (done.action, done.aliases.state) == ("held", "fail")


def test_a_rejection_that_comes_too_late_says_so(registry: Registry) -> None:
    registry.trained_and_judged()
    killed(registry, "before promotion")
    with pytest.raises(WordRefused, match="version 2 of late is champion already"):
        reject(registry.tracking, registry.ledger, MODEL, 2, ANN, registry.at)
    assert registry.ledger.entries(REJECTION, MODEL) == []
