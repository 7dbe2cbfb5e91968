"""Rollouts through the real service, its referee beside it, and the deployment that begins and ends them.

One service, one rollout after the other, as in life.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from ml_platform.serving import operators
from ml_platform.serving.approvals import Word
from ml_platform.serving.client import Client
from ml_platform.serving.process import ServiceProcess, running, start_referee
from ml_platform.serving.referee import read_history
from ml_platform.serving.rollout_files import heartbeat
from ml_platform.spec import WordRefused
from ml_platform.stores.home import FORMAT, write_json
from ml_platform.stores.ledger_kinds import OF_A_MODEL
from ml_platform.stores.ledger_serving import serving_now
from ml_platform.stores.rollout_state import history_path
from ml_platform_tests.rollout_world import Street, street

pytestmark = pytest.mark.long
WORD = Word(by="Ada", reason="because")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    yield from street(tmp_path_factory.mktemp("rollout"))


@pytest.fixture(scope="module")
def served(town: Street) -> Iterator[ServiceProcess]:
    with running(town.profile, "desk", refereed=True) as process:
        yield process


@pytest.fixture(scope="module")
def client(served: ServiceProcess) -> Client:
    return Client(served.url)


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)


def answers(town: Street) -> pl.DataFrame:
    return town.tiny.log.predictions("desk")


def asked(town: Street, client: Client, count: int) -> pl.DataFrame:
    """The log's lines about so many new questions."""
    names = town.ask(client, count)
    return answers(town).filter(pl.col("prediction_id").is_in([*names]))


def test_a_good_version_goes_all_the_way(town: Street, client: Client, tmp_path: Path) -> None:
    """Asked unseen, then a tenth, then half, then all; each step is a line in the ledger, and nobody saw an error."""
    version = town.judged(tmp_path / "v2")
    assert town.deploy().action == "begun"
    assert (town.rollout.phase, town.rollout.share) == ("shadow", 0.0)
    assert set(asked(town, client, 20)["model_version"]) == {"1"}
    held = town.deploy()
    assert (held.action, held.champion) == ("held", "1")
    town.ask_until(client, lambda rollout: rollout.phase == "won")
    log = answers(town)
    assert set(log.filter(variant="canary")["model_version"]) == {version}
    assert set(log.filter(variant="champion")["model_version"]) == {"1"}
    assert set(log.filter(variant="canary")["chance"]) == {0.1, 0.5}
    done = town.deploy()
    assert (done.action, done.champion, town.rollout.closed) == ("promoted", version, True)
    kinds = [line.kind for line in town.ledger.about("late", OF_A_MODEL)]
    assert kinds == ["promotion", "gate", "begin", "hold", "rollout", "rollout", "alias", "promotion"]
    until(lambda: client.model()["version"] == version)
    assert town.deploy().action == "kept"
    assert set(asked(town, client, 5)["model_version"]) == {version}
    history = read_history(history_path(town.way.file, town.rollout.number))
    assert [line["phase"] for line in history if line["phase"] != "canary"][-1] == "won"


def test_a_version_that_is_quietly_worse_never_answers_anybody(town: Street, client: Client, tmp_path: Path) -> None:
    version, champion = town.judged(tmp_path / "bad", upside_down=True), str(client.model()["version"])
    town.deploy()
    before = answers(town).height
    ended = town.ask_until(client, lambda rollout: not rollout.runs)
    assert (ended.phase, ended.step) == ("rolled_back", -1)
    assert "loss" in ended.reason
    assert set(answers(town)[before:]["model_version"]) == {champion}
    refused = town.deploy()
    assert (refused.action, refused.champion) == ("refused", champion)
    assert town.deploy().action == "refused"
    assert f"version {version}" in refused.reason
    serving = serving_now(town.ledger.about("late", OF_A_MODEL))
    assert serving is not None
    assert (serving.champion, serving.canary) == (champion, None)


def test_a_version_that_does_not_load_is_taken_back_at_once(town: Street, client: Client, tmp_path: Path) -> None:
    town.passed(str(town.tiny.register_broken(tmp_path / "broken").version))
    assert town.deploy().action == "begun"
    ended = town.ask_until(client, lambda rollout: not rollout.runs)
    assert ended.phase == "rolled_back"
    assert "cannot be served" in ended.reason
    assert town.deploy().action == "refused"


def test_operators_let_it_rest_go_on_and_end_it(town: Street, client: Client, tmp_path: Path) -> None:
    version, champion = town.judged(tmp_path / "v", upside_down=False), str(client.model()["version"])
    town.deploy()
    town.ask_until(client, lambda rollout: rollout.phase == "canary")
    file, ledger = town.way.file, town.ledger
    assert operators.pause(file, ledger, "desk", WORD, town.now).resting
    share = town.rollout.share
    asked(town, client, 200)
    assert (town.rollout.phase, town.rollout.share) == ("canary", share)
    assert not operators.resume(file, ledger, "desk", WORD, town.now).resting
    line = operators.roll_back(file, town.tiny.tracking, ledger, "late", "desk", WORD, town.now)
    assert (line.body["version"], line.body["before"], line.body["by"]) == (champion, version, "Ada")
    until(lambda: set(asked(town, client, 20)["variant"]) == {"champion"})
    with pytest.raises(WordRefused, match=f"no rollout of service desk runs: the last one, of version {version}"):
        operators.abort(file, ledger, "desk", WORD, town.now)
    assert town.deploy().action == "refused"


def test_a_champion_is_taken_back_by_a_word(town: Street, client: Client) -> None:
    assert client.model()["version"] == "2"
    line = operators.roll_back(town.way.file, town.tiny.tracking, town.ledger, "late", "desk", WORD, town.now)
    assert (line.body["version"], line.body["before"]) == ("1", "2")
    until(lambda: client.model()["version"] == "1")
    assert town.deploy().champion == "1"
    serving = serving_now(town.ledger.about("late", OF_A_MODEL))
    assert serving is not None
    assert serving.champion == "1"


def test_no_canary_answers_while_nobody_watches(
    town: Street, served: ServiceProcess, client: Client, tmp_path: Path
) -> None:
    """The referee is killed while the canary answers a tenth: from ten seconds later on the champion answers all.

    Another one reads the log again, and the rollout goes on.
    """
    version = town.judged(tmp_path / "v")
    assert town.deploy().action == "begun"
    town.ask_until(client, lambda rollout: rollout.phase == "canary")
    assert served.referee is not None
    served.referee.kill()
    served.referee.wait()
    time.sleep(12)
    assert set(asked(town, client, 100)["variant"]) == {"champion"}
    served.referee = start_referee(town.profile, "desk")
    town.ask_until(client, lambda rollout: rollout.phase == "won")
    assert town.deploy().champion == version


def test_a_worker_may_leave_the_referee_to_a_container_beside_it(tmp_path: Path) -> None:
    """As in deploy/kubernetes/rollouts.yaml: no canary answers before the other one gives a sign of life."""
    for own in street(tmp_path):
        write_json(own.profile.home / "ml_platform.json", {"format": FORMAT, "project": own.profile.project})
        with running(own.profile, "desk", refereed=True, referee_beside=True) as process:
            assert process.referee is None
            client, sign = Client(process.url), heartbeat(own.way.file)
            own.judged(tmp_path / "v2")
            assert own.deploy().action == "begun"
            own.ask(client, 20)
            assert not sign.exists()
            settings = {"ML_PLATFORM_HOME": str(own.profile.home), "ML_PLATFORM_PROJECT": own.profile.project}
            command = [sys.executable, "-m", "ml_platform.cli", "referee", "desk"]
            with subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL) as beside:
                try:
                    own.ask_until(client, lambda rollout: rollout.phase == "canary")
                    assert sign.exists()
                finally:
                    beside.terminate()
            assert beside.returncode == 0
