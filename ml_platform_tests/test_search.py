"""Searches: folds in the order of time, exact numbers of trials whatever is killed, and what came out of them."""

import random
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform import metrics
from ml_platform.spec import Between, DeclarationError, ModelSpec, PlatformError, Search, TooFewLabels
from ml_platform.training.search import Searched, folds, search
from ml_platform.training.study import open_study, work
from ml_platform.training.study_plots import plots
from ml_platform_tests.study_worker import DEFAULTS, NAME, SPACE, cheap
from ml_platform_tests.test_training import SPEC, START, rows_of, world_of

FEW = Search(space={"num_leaves": Between(3, 31, log=True), "learning_rate": Between(0.02, 0.4)}, trials=6, folds=2)
SEARCHED = replace(SPEC, search=FEW)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return rows_of(world_of(40), START + timedelta(days=40))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 96), st.integers(100, 700))
def test_a_fold_learns_from_rows_before_the_gap_only(count: int, gap: int, height: int) -> None:
    some = rows_of(world_of(40), START + timedelta(days=40)).sample(height, seed=1)
    asked = Search(space={}, folds=count, gap=timedelta(hours=gap))
    try:
        found = folds(some, asked)
    except TooFewLabels:
        assert gap >= 24 or height / count < 60
        return
    assert len(found) == count
    judged = pl.concat(fold.judged for fold in found)
    assert judged.height == judged["trip"].n_unique()
    first = found[0].judged["happens_at"].min()
    assert set(judged["trip"]) == set(some.filter(pl.col("happens_at") >= first)["trip"])
    for fold in found:
        latest, begins = fold.learned["happens_at"].max(), fold.judged["happens_at"].min()
        assert latest < begins - asked.gap  # type: ignore[operator]


def test_folds_without_rows_are_refused(rows: pl.DataFrame) -> None:
    with pytest.raises(TooFewLabels, match="no labelled rows to search on"):
        folds(rows.clear(), FEW)
    with pytest.raises(TooFewLabels, match="fold 1 of 2 has 0 rows to learn from"):
        folds(rows, replace(FEW, gap=timedelta(days=30)))
    with pytest.raises(TooFewLabels, match=r"fold 1 of 2 has .* take fewer folds"):
        folds(rows.with_columns(label=pl.lit(0)), FEW)


def test_a_search_ends_with_its_trials_and_compares_with_what_is_declared(rows: pl.DataFrame, tmp_path: Path) -> None:
    found = search(SEARCHED, rows, "late", tmp_path / "studies.db", "UTC", workers=2)
    assert found.completed + found.pruned == FEW.trials
    assert set(found.best) == set(FEW.space)
    parts = folds(rows, FEW)
    labels = np.concatenate([part.judged["label"].to_numpy() for part in parts])
    assert found.declared_loss - found.loss == pytest.approx(found.gain, abs=1e-12)
    assert found.low <= found.gain <= found.high
    assert found.loss < metrics.log_loss(labels, np.full(len(labels), labels.mean()))
    study = open_study("late", f"sqlite:///{tmp_path}/studies.db", 1)
    first = study.trials[0]
    assert first.params["num_leaves"] == 7  # what is declared is tried first
    assert min(trial.value for trial in study.trials if trial.value is not None) == study.best_value
    assert study.best_value == pytest.approx(found.loss, abs=1e-6)
    drawn = plots(study)
    assert set(drawn) == {"Loss by trial", "Importance of parameters", "Loss by parameter"}
    assert all(png.startswith(b"\x89PNG") and len(png) > 5000 for png in drawn.values())
    assert plots(open_study("empty", f"sqlite:///{tmp_path}/studies.db", 1)) == {}
    again = search(SEARCHED, rows, "late", tmp_path / "studies.db", "UTC", workers=1)
    assert again == found  # the study was carried through: nothing is tried again


def test_a_gain_that_may_be_none_is_called_so() -> None:
    facts: dict[str, Any] = {"best": {}, "loss": 0.4, "declared_loss": 0.41, "completed": 3, "pruned": 1, "failed": 0}
    unsure = Searched(**facts, gain=0.01, low=-0.002, high=0.02, better=0.9)
    assert unsure.sentence().startswith("no surely better parameters were found: log-loss 0.4000 instead of 0.4100")
    assert replace(unsure, low=0.001).sentence().startswith("better parameters were found")


@pytest.mark.parametrize(
    ("space", "why"),
    [
        ({"num_leaves": Between(9, 3)}, "num_leaves cannot be searched"),
        ({"num_leaves": Between(0, 3, log=True)}, "num_leaves cannot be searched"),
        ({"num_leaves": ()}, "num_leaves cannot be searched"),
    ],
)
def test_a_space_that_is_none_is_refused(space: Mapping[str, Any], why: str, tmp_path: Path) -> None:
    study = open_study("s", f"sqlite:///{tmp_path}/s.db", 1)
    with pytest.raises(DeclarationError, match=why):
        work(study, Search(space=space), {}, cheap, tmp_path / "lock")


def test_a_model_without_a_search_and_a_worker_that_fails(rows: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="late_trees declares no search"):
        search(SPEC, rows, "s", tmp_path / "s.db", "UTC", workers=1)
    broken: ModelSpec = replace(SEARCHED, search=replace(FEW, space={"num_leaves": (-1,)}))
    with pytest.raises(PlatformError, match=r"workers of the search for late_trees ended with \[1\]"):
        search(broken, rows, "s", tmp_path / "s.db", "UTC", workers=1)


def begun(folder: Path, trials: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "ml_platform_tests.study_worker", str(folder), str(trials)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def killed_again_and_again(folder: Path, trials: int, kills: int, chance: random.Random) -> None:
    """Two workers at a time, killed at random moments and started anew, then left alone until they end."""
    open_study(NAME, f"sqlite:///{folder}/studies.db", 7)
    working = [begun(folder, trials) for _ in range(2)]
    done = 0
    while done < kills and any(worker.poll() is None for worker in working):
        time.sleep(chance.uniform(0.05, 1.6))
        victim = chance.randrange(2)
        if working[victim].poll() is None:
            working[victim].kill()
            done += 1
        working[victim].communicate()
        working[victim] = begun(folder, trials)
    for worker in working:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said.decode()[-2000:]
    states = [trial.state.name for trial in open_study(NAME, f"sqlite:///{folder}/studies.db", 7).trials]
    assert states.count("COMPLETE") + states.count("PRUNED") == trials
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}, "a trial that nobody runs is called running"
    assert states.count("FAIL") <= done


def test_killed_workers_leave_no_zombie_and_the_exact_number_of_trials(tmp_path: Path) -> None:
    killed_again_and_again(tmp_path, trials=25, kills=4, chance=random.Random(3))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_fifty_kills_over_twenty_studies(seed: int, tmp_path: Path) -> None:
    killed_again_and_again(tmp_path, trials=40, kills=3 if seed % 2 else 2, chance=random.Random(seed))


def test_the_declared_values_are_tried_once_and_the_best_is_found(tmp_path: Path) -> None:
    study = open_study(NAME, f"sqlite:///{tmp_path}/studies.db", 7)
    work(study, Search(space=SPACE, trials=30), DEFAULTS, cheap, tmp_path / "lock")
    assert dict(study.trials[0].params) == DEFAULTS
    assert sum(dict(trial.params) == DEFAULTS for trial in study.trials) == 1
    assert study.best_value < cheap(DEFAULTS, lambda step, loss: None) / 4
