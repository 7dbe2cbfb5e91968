"""A network trained by several processes: the same bits whatever is killed, and what cannot be done is said before."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from ml_platform import asset_keys
from ml_platform.spec import DeclarationError, ModelSpec, PlatformError, StateError, Workers, blend_of
from ml_platform.spec.compute import refuse_compute
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.spec.manifests import RunManifest
from ml_platform.training.checkpoints import CHECKPOINT_FILE, Checkpoint, kept_in, read_checkpoint, write_whole
from ml_platform.training.estimators import load, train
from ml_platform.training.manifest import read_manifest
from ml_platform.training.model import Model
from ml_platform.training.reproduce import reproduce
from ml_platform.training.workers import Site
from ml_platform_tests.replay_world import PACKAGE
from ml_platform_tests.test_evaluation import made_house
from ml_platform_tests.test_training import SPEC, START, rows_of, world_of

NETWORK = replace(
    SPEC,
    name="late_network",
    estimator="torch",
    parameters={"hidden": (16,), "epochs": 12, "batch_rows": 16, "patience": 12},
)
TOGETHER = replace(NETWORK, compute="ddp", workers=Workers(count=2, checkpoint_steps=25))
SECONDS = 120


@lru_cache
def rows() -> pl.DataFrame:
    return rows_of(world_of(40), START + timedelta(days=40))


@lru_cache
def undisturbed() -> Model:
    return train(TOGETHER, rows(), threads=1)


# Checkpoints


CHECKPOINT = Checkpoint(owner="a", position={"step": 3, "losses": [0.5]}, arrays={"x/y": np.arange(4.0)})


def test_a_checkpoint_comes_back_as_it_was_kept_and_to_its_owner_only(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path, "a") is None
    write_whole(tmp_path / CHECKPOINT_FILE, CHECKPOINT.to_bytes())
    found = read_checkpoint(tmp_path, "a")
    assert found is not None
    assert (found.position, list(found.arrays)) == (CHECKPOINT.position, ["x/y"])
    assert np.array_equal(found.arrays["x/y"], CHECKPOINT.arrays["x/y"])
    assert read_checkpoint(tmp_path, "b") is None
    assert [found.name for found in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_half_a_checkpoint_or_one_that_holds_a_pickle_is_none(tmp_path: Path) -> None:
    whole = CHECKPOINT.to_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / CHECKPOINT_FILE).write_bytes(whole[:size])
        assert read_checkpoint(tmp_path, "a") is None
    np.savez(tmp_path / CHECKPOINT_FILE, position=np.array([_Trap()], dtype=object))
    assert read_checkpoint(tmp_path, "a") is None
    assert not _Trap.sprung


class _Trap:
    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (_Trap, "sprung", True))


def test_checkpoints_of_a_model_are_of_one_training_and_go_when_it_succeeds(tmp_path: Path) -> None:
    with kept_in(tmp_path, "late") as folder:
        (folder / "x").touch()
        with (
            pytest.raises(StateError, match="model late is being trained by another process"),
            kept_in(tmp_path, "late"),
        ):
            pass
        with kept_in(tmp_path, "other"):
            pass
    assert not folder.exists()
    with pytest.raises(KeyError):
        _fails_while_it_trains(tmp_path)
    assert (folder / "x").exists()
    with kept_in(tmp_path, "late"):
        assert [found.name for found in folder.iterdir()] == ["x"]


def _fails_while_it_trains(path: Path) -> None:
    with kept_in(path, "late") as folder:
        (folder / "x").touch()
        (folder / "rows").mkdir()
        raise KeyError


# Declarations


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"compute": "dpp"}, "no way to compute .model late_network. named 'dpp'; did you mean ddp"),
        ({"workers": Workers(count=0)}, "late_network declares workers with count=0; 1 is the least"),
        ({"workers": Workers(threads=0)}, "threads=0; 1 is the least"),
        ({"workers": Workers(checkpoint_steps=0)}, "checkpoint_steps=0; 1 is the least"),
        ({"workers": Workers(restarts=-1)}, "restarts=-1; 0 is the least"),
        ({"estimator": "lightgbm"}, "lightgbm cannot be trained with compute='ddp': DDP is PyTorch's"),
        ({"estimator": "sklearn"}, "sklearn cannot be trained with compute='ddp': scikit-learn fits in one process"),
        ({"estimator": "blend", "compute": "ray"}, "blend cannot be trained with compute='ray': it trains nothing of"),
    ],
)
def test_what_cannot_be_trained_by_workers_is_refused(changes: Mapping[str, Any], why: str) -> None:
    spec: ModelSpec = replace(TOGETHER, **changes)
    with pytest.raises(DeclarationError, match=why):
        refuse_compute(spec.name, spec.estimator, spec.compute, spec.workers)
    with pytest.raises(DeclarationError, match=why):
        train(spec, pl.DataFrame(), threads=1)


def test_what_decides_the_bits_is_content_and_what_does_not_is_none() -> None:
    same = replace(TOGETHER, workers=replace(TOGETHER.workers, restarts=9, checkpoint_steps=7))
    assert fingerprint(same) == fingerprint(TOGETHER)
    for workers in (replace(TOGETHER.workers, count=3), replace(TOGETHER.workers, threads=2)):
        assert fingerprint(replace(TOGETHER, workers=workers)) != fingerprint(TOGETHER)
    assert fingerprint(NETWORK) != fingerprint(replace(NETWORK, compute="ddp"))


def test_a_blend_of_a_network_trains_its_members_alone() -> None:
    blend = replace(SPEC, estimator="blend", parameters=blend_of(SPEC, NETWORK))
    assert train(blend, rows(), threads=1).facts["torch_1_device"] == "cpu"


# Workers, killed


class Training(threading.Thread):
    """A training in a thread of this process, whose workers are processes of their own."""

    def __init__(self, spec: ModelSpec, folder: Path, ray_address: str | None = None) -> None:
        super().__init__()
        self.spec, self.folder = spec, folder
        self.site = Site(checkpoints=folder, ray_address=ray_address)
        self.model: Model | None = None
        self.error: PlatformError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.model = train(self.spec, rows(), threads=1, site=self.site)
        except PlatformError as error:
            self.error = error

    def workers(self) -> list[int]:
        return sorted(process.pid or 0 for process in multiprocessing.active_children())

    def kept(self) -> tuple[int, int]:
        """Part and steps of the newest checkpoint."""
        return kept_steps(self.folder / self.spec.name)

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not reached():
            assert self.is_alive(), f"it ended too early: {self.error or self.model}"
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def ended(self) -> Model:
        self.join(SECONDS)
        assert self.error is None, self.error
        assert self.model is not None
        return self.model


def kept_steps(folder: Path) -> tuple[int, int]:
    try:
        position = Checkpoint.from_bytes((folder / CHECKPOINT_FILE).read_bytes()).position
    except FileNotFoundError:
        return (0, 0)
    return position["part"], position["steps"]


def listening(pid: int) -> set[str]:
    """Addresses, hexadecimal as the kernel writes them, on which a process listens."""
    mine = {str(found.readlink()) for found in Path(f"/proc/{pid}/fd").iterdir() if found.is_symlink()}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in mine}


def same(found: Model, other: Model) -> bool:
    apart = abs(found.facts["stopping_log_loss"] - other.facts["stopping_log_loss"])
    return apart <= 1e-6 and found.digests() == other.digests()


@pytest.mark.long
def test_killed_workers_end_with_the_bits_of_an_undisturbed_training(tmp_path: Path) -> None:
    training = Training(TOGETHER, tmp_path)
    for victim, part, steps in ((1, 0, 100), (0, 1, 100)):
        training.until(lambda part=part, steps=steps: training.kept() >= (part, steps))  # type: ignore[misc]
        workers = training.workers()
        assert len(workers) == 2
        assert {address for pid in workers for address in listening(pid)} == {"0100007F"}, "beyond 127.0.0.1"
        before = training.kept()
        os.kill(workers[victim], signal.SIGKILL)
        training.until(lambda workers=workers: not set(workers) & set(training.workers()))  # type: ignore[misc]
        training.until(lambda before=before: training.kept() > before)  # type: ignore[misc]
        behind = training.kept()
        assert behind[0] > before[0] or behind[1] - before[1] <= 3 * TOGETHER.workers.checkpoint_steps, "it began anew"
    found = training.ended()
    assert found.facts["restarts"] == 2
    assert found.facts["ranks"] == 2
    assert same(found, undisturbed())
    assert not (tmp_path / TOGETHER.name).exists()


@pytest.mark.long
def test_a_training_that_was_killed_with_its_workers_goes_on_in_another_process(tmp_path: Path) -> None:
    code = f"from ml_platform_tests.test_workers import *; train_in({str(tmp_path)!r})"
    killed = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], start_new_session=True)
    deadline = time.monotonic() + SECONDS
    while kept_steps(tmp_path / TOGETHER.name) < (0, 200):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    workers = [int(pid) for pid in Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()]
    assert len(workers) >= 2
    killed.kill()
    killed.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "workers outlive the process that started them"
        time.sleep(0.01)
    before = kept_steps(tmp_path / TOGETHER.name)
    again = Training(TOGETHER, tmp_path)
    again.until(lambda: again.kept() != before)
    assert again.kept() > before
    found = again.ended()
    assert found.facts["restarts"] == 0
    assert same(found, undisturbed())


def train_in(folder: str) -> None:
    """What the killed process does."""
    train(TOGETHER, rows(), threads=1, site=Site(checkpoints=Path(folder)))


@pytest.mark.long
def test_workers_that_are_killed_too_often_end_the_training_in_words(tmp_path: Path) -> None:
    spec = replace(TOGETHER, workers=replace(TOGETHER.workers, restarts=1))
    training = Training(spec, tmp_path)
    training.until(lambda: len(training.workers()) == 2)
    first = training.workers()
    os.kill(first[1], signal.SIGKILL)
    training.until(lambda: len(set(training.workers()) - set(first)) == 2)
    os.kill(training.workers()[1], signal.SIGKILL)
    training.join(SECONDS)
    assert training.error is not None
    assert "the workers of model late_network were started 2 times and failed each time" in str(training.error)
    assert "SIGKILL" in str(training.error)
    assert multiprocessing.active_children() == []


@pytest.mark.long
def test_a_checkpoint_of_other_rows_is_not_gone_on_from_and_one_rank_is_as_none(tmp_path: Path) -> None:
    (tmp_path / TOGETHER.name).mkdir()
    write_whole(tmp_path / TOGETHER.name / CHECKPOINT_FILE, CHECKPOINT.to_bytes())
    alone = replace(TOGETHER, workers=Workers(count=1))
    found = Training(alone, tmp_path).ended()
    assert same(found, train(NETWORK, rows(), threads=1))
    assert found.digests() != undisturbed().digests()


@pytest.mark.long
def test_the_asset_trains_by_workers_and_the_version_is_made_again_to_the_bit(tmp_path: Path) -> None:
    spec = replace(TOGETHER, parameters={**NETWORK.parameters, "epochs": 2})
    house = made_house(tmp_path / "home", spec)
    keys = [asset_keys.training_set(spec.name), asset_keys.model(spec.name)]
    assert house.at(START + timedelta(days=31), dg.AssetSelection.assets(*keys)).success
    assert list(house.profile.checkpoints_path.iterdir()) == [house.profile.checkpoints_path / f"{spec.name}.lock"]
    folder = house.tracking.download(house.tracking.version(spec.name, 1), tmp_path / "files")
    manifest = read_manifest(folder)
    assert (manifest.compute, manifest.workers) == ("ddp", {"count": 2, "threads": 1})
    assert RunManifest.from_json(manifest.to_json()) == manifest
    assert load(folder).facts["ranks"] == 2
    # What the manifest says counts, not what is declared today.
    today = replace(house.project, models={spec.name: replace(spec, compute="local", workers=Workers(count=3))})
    site = Site()
    found = reproduce(house.lake, house.tracking, today, PACKAGE, spec.name, 1, tmp_path / "scratch", site)
    assert found.state == "bit-identical", found.reason
    assert "2 workers of 1 threads (ddp)" in found.reason
    assert "the model or a view is declared otherwise now" in " ".join(found.notes)
