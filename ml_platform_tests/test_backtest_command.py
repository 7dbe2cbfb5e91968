"""The backtest's words and what its command writes; and that the real replay driver decides and answers the same."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from ml_platform.decisions.backtest import DECLARED, NEVER, RANDOM, TIMER, WEEKLY, Question, backtest, declared_for
from ml_platform.decisions.backtest_commands import backtest as command
from ml_platform.decisions.backtest_history import history
from ml_platform.decisions.backtest_vary import varied
from ml_platform.resources.projects import load_project
from ml_platform.spec import DeclarationError, RetrainPolicy, UnknownName
from ml_platform_tests.replay_world import PACKAGE, shifted
from ml_platform_tests.test_backtest import FIRST, LAST
from ml_platform_tests.trips.world import BEHAVIOUR, SHIFTS_ON

# Words


def test_fields_are_varied_by_their_type() -> None:
    policy = RetrainPolicy(name="a")
    found = varied(policy, ["window=3,7", "deadline=none,28", "min_rows=10"])
    assert list(found) == [
        "window=3 deadline=none min_rows=10",
        "window=3 deadline=28 min_rows=10",
        "window=7 deadline=none min_rows=10",
        "window=7 deadline=28 min_rows=10",
    ]
    last = found["window=7 deadline=28 min_rows=10"]
    assert (last.window, last.deadline, last.min_rows) == (timedelta(days=7), timedelta(days=28), 10)
    assert varied(policy, []) == {}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("widow=3", "did you mean window"),
        ("window", "names no values; write it like window=1,2"),
        ("window=", "names no values"),
        ("window=1,", "names no values"),
        ("window=soon", "window=soon is no value of the field window"),
        ("min_rows=1.5", "min_rows=1.5 is no value"),
        ("name=a", "no field of a retraining policy named 'name'"),
    ],
)
def test_a_word_that_cannot_be_read_says_so(word: str, said: str) -> None:
    with pytest.raises((DeclarationError, UnknownName), match=said):
        varied(RetrainPolicy(), [word])


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ML_PLATFORM_PROJECT", PACKAGE)
    monkeypatch.setenv(BEHAVIOUR, "shifted")
    return tmp_path / "home"


def test_the_command_writes_table_picture_page_and_figures(there: Path) -> None:
    words = ["late", "--to", str(LAST), "--since", str(SHIFTS_ON), "--draws", "2", "--skip", "drift"]
    words += ["--json", str(there / "out" / "found.json")]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "labelled answers of 15 days, 2024-03-06 to 2024-03-20" in done.output
    assert "from the sources" in done.output
    found, part = json.loads((there / "out" / "found.json").read_text())
    assert (part["judged_since"], part["policies"][3]["policy"]) == (str(SHIFTS_ON), DECLARED)
    assert part["answers"] < found["answers"]
    told = {one["policy"]: one for one in found["policies"]}
    assert list(told) == [NEVER, WEEKLY, TIMER, DECLARED, RANDOM]
    assert told[DECLARED]["events"][0]["day"] == str(SHIFTS_ON)
    assert f"{told[DECLARED]['log_loss']:.4f}" in done.output
    assert (there / "reports" / "backtest-late.png").read_bytes().startswith(b"\x89PNG")
    page = (there / "reports" / "backtest-late.html").read_text()
    assert f"From {SHIFTS_ON} on" in page
    assert "late labels: log-loss" in page
    assert "it beats the champion" in page


def test_a_model_that_is_not_there(there: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean late"):
        CliRunner().invoke(command, ["lat"], catch_exceptions=False)


# The real thing


@pytest.mark.long
def test_the_real_replay_decides_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, trips = shifted(folder), load_project(PACKAGE)
    monkeypatch.setenv(BEHAVIOUR, "shifted")
    last = SHIFTS_ON + timedelta(days=1)
    raw = {name: home.lake.read(f"raw/{name}").drop("known_date") for name in ("asked", "ended")}
    spec = trips.models["late"]
    real_history = history(trips, spec, raw, until=last)
    asked, declared = (
        Question(first=FIRST, last=last, since=FIRST, skipped=("drift", WEEKLY)),
        declared_for(trips, spec),
    )
    found = backtest(real_history, declared, asked, folder / "backtest", threads=1).policies[DECLARED]
    written = {entry.key: entry.body for entry in home.ledger("decision", "lateness")}
    first, second = (f"of {day}" for day in (FIRST, SHIFTS_ON + timedelta(days=1)))
    for day, decision in found.decisions.items():
        real = written[str(day)]
        same = decision.reason.replace(f"version {first}", "version 1").replace(f"version {second}", "version 2")
        # A review of drift waits for a person, whom a backtest does not have.
        assert (decision.answer, same) == (real["answer"], real["reason"].split("; drift/")[0])
    assert len(found.decisions) == (last - FIRST).days
    assert [one.promoted for one in found.retrainings] == [True]
    answers = home.table("predictions/desk", last).sort("asked_at", "prediction_id")
    asked_rows = real_history.questions.filter(pl.col("asked_at") >= answers["asked_at"][0])
    served = pl.DataFrame({"prediction_id": asked_rows["trip"], "given": found.answers[-asked_rows.height :]})
    both = answers.join(served, on="prediction_id")
    assert both.height == answers.height
    assert np.array_equal(both["probability"].to_numpy(), both["given"].to_numpy())
