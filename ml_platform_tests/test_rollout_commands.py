"""`ml-platform rollout ...` on a state folder whose service does not run."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ml_platform.cli import main
from ml_platform.serving.referee import Referee
from ml_platform.stores.ledger_kinds import OF_A_MODEL
from ml_platform_tests.rollout_world import Street, street

WHO = ("--by", "Ada", "--reason", "the storm is over")


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Street]:
    yield from street(tmp_path)


@pytest.fixture
def say(town: Street) -> Callable[..., Result]:
    env = {"ML_PLATFORM_HOME": str(town.profile.home), "ML_PLATFORM_PROJECT": "tiny"}
    return lambda *words: CliRunner().invoke(main, ["rollout", *words], env=env)


def test_before_the_first_rollout_there_is_nothing_to_say(say: Callable[..., Result]) -> None:
    assert say("status").output == "service desk never had a rollout\n"
    assert json.loads(say("status", "desk", "--json").output) is None
    assert "nothing to compare" in say("compare").output
    refused = say("pause", *WHO)
    assert refused.exit_code == 1
    assert "no rollout of service desk runs: it never had one" in refused.output
    none = say("rollback", *WHO)
    assert none.exit_code == 1
    assert "none before it to go back to" in none.output


def test_what_it_says_and_what_an_operator_does(town: Street, say: Callable[..., Result], tmp_path: Path) -> None:
    version = town.judged(tmp_path / "v2")
    town.deploy()
    assert "nothing was looked at yet" in say("status").output
    referee = Referee(
        service="desk",
        policy=town.way.policy,
        file=town.way.file,
        ledger=town.ledger,
        log=town.profile.log_path,
        timezone=town.tiny.project.timezone,
        shadow=lambda rollout, records: [],
    )
    referee.look(town.now)
    told = say("status").output
    assert f"version {version} over version 1 of late: asked unseen since 2013-04-01 16:20 UTC" in told
    assert "loss: no data" in told
    assert "waits for shadow: 0 of 40 answers" in told
    plain = json.loads(say("status", "--json").output)
    assert (plain["canary"], plain["phase"], plain["look"]["shadowed"]) == (version, "shadow", 0)
    assert "paused" in say("pause", "desk", *WHO).output
    assert town.rollout.resting
    assert "paused" not in say("resume", "desk", *WHO).output
    assert "no data" in say("compare").output
    assert (town.profile.reports_path / "ab-desk-1.html").exists()
    assert "aborted since" in say("abort", "desk", *WHO).output
    assert town.deploy().action == "refused"
    kinds = [line.kind for line in town.ledger.about("late", OF_A_MODEL)]
    assert kinds == ["promotion", "gate", "begin", "pause", "resume", "abort", "refusal"]


@pytest.mark.parametrize("word", ["pause", "resume", "abort", "rollback"])
def test_a_word_needs_a_name_and_a_reason(say: Callable[..., Result], word: str) -> None:
    assert "Missing option" in say(word).output
    empty = say(word, "--by", " ", "--reason", "x")
    assert empty.exit_code == 1
    assert "give --by a name" in empty.output


def test_an_unknown_service_and_one_without_a_policy(say: Callable[..., Result]) -> None:
    assert "there is no service named 'dask'; did you mean desk?" in say("status", "dask").output
    assert "service idle has no rollout policy" in say("status", "idle").output
