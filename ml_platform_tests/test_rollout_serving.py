"""Rollouts through the real service, its referee beside it, and the deployment that begins and ends them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from ml_platform.serving.client import Client
from ml_platform.serving.process import ServiceProcess, running
from ml_platform.serving.referee import history_path, read_history
from ml_platform.stores.ledger_kinds import OF_A_MODEL
from ml_platform.stores.ledger_serving import serving_now
from ml_platform_tests.rollout_world import Street, street


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Street]:
    yield from street(tmp_path)


@pytest.fixture
def served(town: Street) -> Iterator[ServiceProcess]:
    with running(town.profile, "desk", refereed=True) as process:
        yield process


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)


def kinds(town: Street) -> list[str]:
    return [line.kind for line in town.ledger.about("late", OF_A_MODEL)]


def answers(town: Street) -> pl.DataFrame:
    return town.tiny.log.predictions("desk")


def test_a_good_version_goes_all_the_way(town: Street, served: ServiceProcess, tmp_path: Path) -> None:
    """Asked unseen, then a tenth, then half, then all; each step is a line in the ledger, and nobody saw an error."""
    client = Client(served.url)
    version = town.judged(tmp_path / "v2")
    assert town.deploy().action == "begun"
    assert (town.rollout.phase, town.rollout.share) == ("shadow", 0.0)
    town.ask(client, 20)
    assert set(answers(town)["model_version"]) == {"1"}
    held = town.deploy()
    assert (held.action, held.champion) == ("held", "1")
    town.ask_until(client, lambda rollout: rollout.phase == "won")
    log = answers(town)
    assert set(log.filter(variant="canary")["model_version"]) == {version}
    assert set(log.filter(variant="champion")["model_version"]) == {"1"}
    assert set(log.filter(variant="canary")["chance"]) == {0.1, 0.5}
    done = town.deploy()
    assert (done.action, done.champion, town.rollout.closed) == ("promoted", version, True)
    assert kinds(town) == ["promotion", "gate", "begin", "hold", "rollout", "rollout", "alias", "promotion"]
    until(lambda: client.model()["version"] == version)
    assert town.deploy().action == "kept"
    town.ask(client, 5)
    assert set(answers(town).tail(5)["model_version"]) == {version}
    history = read_history(history_path(town.way.file, town.rollout.number))
    assert [line["phase"] for line in history if line["phase"] != "canary"][-1] == "won"


def test_a_version_that_is_quietly_worse_never_answers_anybody(
    town: Street, served: ServiceProcess, tmp_path: Path
) -> None:
    client = Client(served.url)
    version = town.judged(tmp_path / "v2", upside_down=True)
    town.deploy()
    ended = town.ask_until(client, lambda rollout: not rollout.runs)
    assert (ended.phase, ended.step) == ("rolled_back", -1)
    assert "loss" in ended.reason
    assert set(answers(town)["model_version"]) == {"1"}
    refused = town.deploy()
    assert (refused.action, refused.champion) == ("refused", "1")
    assert town.deploy().action == "refused"
    assert f"version {version}" in refused.reason
    serving = serving_now(town.ledger.about("late", OF_A_MODEL))
    assert serving is not None
    assert (serving.champion, serving.canary) == ("1", None)


def test_a_version_that_does_not_load_is_taken_back_at_once(
    town: Street, served: ServiceProcess, tmp_path: Path
) -> None:
    client = Client(served.url)
    town.passed(str(town.tiny.register_broken(tmp_path / "v2").version))
    town.deploy()
    ended = town.ask_until(client, lambda rollout: not rollout.runs)
    assert ended.phase == "rolled_back"
    assert "cannot be served" in ended.reason
    assert set(answers(town)["model_version"]) == {"1"}


def test_no_canary_answers_while_nobody_watches(town: Street, served: ServiceProcess, tmp_path: Path) -> None:
    """The referee is killed while the canary answers a tenth: from ten seconds later on the champion answers all."""
    client = Client(served.url)
    town.judged(tmp_path / "v2")
    town.deploy()
    town.ask_until(client, lambda rollout: rollout.phase == "canary")
    assert served.referee is not None
    served.referee.kill()
    served.referee.wait()
    time.sleep(12)
    before = answers(town).height
    town.ask(client, 100)
    later = answers(town).tail(-before)
    assert set(later["variant"]) == {"champion"}
