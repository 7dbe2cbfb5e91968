"""From an approved version to an image's context, and a service that starts from that folder and from nothing else."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ml_platform.cli import main
from ml_platform.serving.client import Client
from ml_platform.serving.image_pins import locked, pins
from ml_platform.serving.process import running
from ml_platform.serving.shipped import Shipped
from ml_platform.spec import DeclarationError
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import APPROVAL, PROMOTION, REJECTION, TRAINING
from ml_platform.stores.model_files import digests
from ml_platform.stores.prediction_log import PredictionLog, Truth
from ml_platform.training.lightgbm_trees import MODEL_FILE
from ml_platform_tests.serving_world import NOON, ROW, World, standard
from ml_platform_tests.test_model_files import forged

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
ROWS = [{**ROW, "trip": "hot"}, {**ROW, "trip": "cold", "city": "Oslo", "line": None}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Version 1 is champion; version 2 was never let pass; of both the ledger knows the files."""
    folder = tmp_path_factory.mktemp("image")
    for made in standard(folder):
        ledger = Ledger(made.profile.ledger_path)
        second = made.register(made.trained(folder / "v2", upside_down=True))
        for version in made.tracking.versions("late"):
            files = digests(made.tracking.download(version, folder))
            body = {"version": version.version, "decision": 0, "files": files}
            ledger.write(TRAINING, "late", f"run-{version.version}", NOON, body)
        told = {"alias": "champion", "version": "1", "before": None, "reason": "first", "gate": 0, "approval": None}
        ledger.write(PROMOTION, "late", "v1", NOON, told)
        assert second.version == 2
        yield made


def said(tiny: World, *words: object) -> Result:
    env = {"ML_PLATFORM_HOME": str(tiny.profile.home), "ML_PLATFORM_PROJECT": "tiny"}
    return CliRunner().invoke(main, ["image", *map(str, words)], env=env)


@pytest.fixture(scope="module")
def shipped(tiny: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped") / "desk"
    done = said(tiny, "desk", "--to", folder)
    assert done.exit_code == 0, done.output
    return folder


def copied(shipped: Path, target: Path) -> Path:
    return shutil.copytree(shipped, target)


# What is in it


def test_the_context_holds_the_version_its_digests_the_code_and_the_pins(tiny: World, shipped: Path) -> None:
    found = Shipped.read(shipped)
    assert (found.service, found.model, found.version, found.project) == ("desk", "late", "1", "tiny")
    assert found.digests == digests(shipped / "model")
    assert found.allowed["kind"] == "promotion"
    names = {path.name for path in shipped.iterdir()}
    assert names == {
        "manifest.json",
        "model",
        "ml_platform",
        "tiny",
        "tiny_features",
        "requirements.txt",
        "Dockerfile",
        ".dockerignore",
        "shipped_service.py",
        "bentofile.yaml",
        "README.md",
    }
    lines = (shipped / "requirements.txt").read_text().splitlines()
    lock = dict(line.split("==") for line in LOCK.read_text().splitlines())
    assert {name: lock[name] for name in (line.split("==")[0] for line in lines)} == dict(
        line.split("==") for line in lines
    )
    pinned = {line.split("==")[0] for line in lines}
    assert {"bentoml", "lightgbm", "polars", "redis"} <= pinned
    assert not pinned & {"torch", "mlflow", "feast", "evidently", "ray", "optuna", "scikit-learn"}
    assert not [name for name in pinned if name.startswith("dagster")]


def test_a_network_brings_torch_along_and_an_unlocked_package_is_named() -> None:
    lock = locked(LOCK)
    assert "torch" in {line.split("==")[0] for line in pins(lock, ["torch"])}
    with pytest.raises(DeclarationError, match="nonsense is not in the lock"):
        pins(lock, ["polars", "nonsense"])


def test_every_file_that_the_dockerfile_and_bentofile_name_is_there(shipped: Path) -> None:
    text = (shipped / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (\S+) ", text, re.M):
        assert (shipped / source).exists()
    assert re.search(r"^USER [1-9]\d+$", text, re.M)
    assert "HEALTHCHECK" in text
    bento = json.loads((shipped / "bentofile.yaml").read_text())
    assert (shipped / bento["python"]["requirements_txt"]).is_file()
    assert (shipped / f"{bento['service'].split(':')[0]}.py").is_file()


# Who may be shipped


def test_a_version_that_nobody_let_pass_is_refused_unless_it_is_said(tiny: World, tmp_path: Path) -> None:
    done = said(tiny, "late", 2, "--to", tmp_path / "two")
    assert done.exit_code == 1
    assert re.search(r"version 2 of late was never approved or promoted.*--override", done.output)
    assert list(tmp_path.iterdir()) == []
    assert said(tiny, "late", 2, "--override", "--to", tmp_path / "two").exit_code == 0
    assert Shipped.read(tmp_path / "two").allowed == {"line": None, "kind": "override"}
    assert "by nobody's word" in (tmp_path / "two" / "README.md").read_text()
    ledger = Ledger(tiny.profile.ledger_path)
    word = {"version": "2", "champion": "1", "by": "ann", "reason": "looked", "gate": 0, "override": False}
    line = ledger.write(APPROVAL, "late", "v2 over 1", NOON, word)
    assert said(tiny, "late", 2, "--to", tmp_path / "approved").exit_code == 0
    assert Shipped.read(tmp_path / "approved").allowed["line"] == line.number
    ledger.write(REJECTION, "late", "v2", NOON, {"version": "2", "by": "bob", "reason": "no"})
    assert "was rejected by bob" in said(tiny, "late", 2, "--to", tmp_path / "rejected").output


def test_what_is_asked_wrongly_is_told_and_writes_nothing(tiny: World, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for words, told in (
        (("disk", "--to", tmp_path / "a"), "no service or served model named 'disk'; did you mean desk"),
        (("desk", 9, "--to", tmp_path / "a"), "no version of model late named '9'"),
        (("idle", "--to", tmp_path / "a"), "model other has no champion yet"),
        (("desk", "--to", tmp_path / "full"), "holds something"),
        (("desk", "--to", tmp_path / "a", "--lock", tmp_path / "none.lock"), "there is no lock at"),
    ):
        done = said(tiny, *words)
        assert done.exit_code == 1
        assert told in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_files_that_are_not_those_of_the_ledger_are_not_shipped(tiny: World, tmp_path: Path) -> None:
    folder = tiny.tracking.download(tiny.tracking.version("late", 1), tmp_path)
    before = {path: path.read_bytes() for path in (folder / MODEL_FILE, folder / "schema.json")}
    forged(folder)
    done = said(tiny, "desk", "--override", "--to", tmp_path / "a")
    for path, content in before.items():
        path.write_bytes(content)
    assert done.exit_code == 1
    assert f"{MODEL_FILE} has another SHA-256" in done.output


# A service from the folder alone


@dataclass(frozen=True)
class Alone:
    """The entry point of an image as a process that sees the folder and the pinned packages, and nothing else."""

    folder: Path
    packages: Path
    state: Path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-S", "-m", "ml_platform.serving.shipped", str(self.folder), *words]

    @property
    def environment(self) -> Mapping[str, str]:
        path = os.pathsep.join([str(self.folder), str(self.packages)])
        return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "ML_PLATFORM_HOME": str(self.state)}

    @contextmanager
    def running(self, *words: str) -> Iterator[str]:
        """Where it answers."""
        out = self.state / "said.txt"
        with out.open("w+") as output:
            process = subprocess.Popen(
                self.command("--port", "0", *words), cwd=self.state, env=self.environment, stdout=output, stderr=output
            )
            try:
                yield self._address(process, out)
                process.send_signal(signal.SIGTERM)
                process.wait(20)
            finally:
                process.kill()
                process.wait()

    def _address(self, process: "subprocess.Popen[bytes]", out: Path) -> str:
        deadline = time.monotonic() + 90
        while True:
            found = re.search(r"answers on (http://127\.0\.0\.1:\d+)", out.read_text())
            if found and answers(found[1]):
                return found[1]
            assert process.poll() is None, out.read_text()
            assert time.monotonic() < deadline, out.read_text()
            time.sleep(0.1)


def answers(url: str) -> bool:
    ready = "import sys, urllib.request as ask; ask.urlopen(sys.argv[1] + '/readyz', timeout=2)"
    return subprocess.run([sys.executable, "-c", ready, url], capture_output=True, check=False).returncode == 0


def pinned_alone(requirements: Path, target: Path) -> Path:
    """A folder that leads to the files of the pinned packages: what `pip install -r` would install."""
    target.mkdir()
    for line in requirements.read_text().splitlines():
        found = distribution(line.split("==")[0])
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (target / top).exists():
                (target / top).symlink_to(Path(str(found.locate_file(top))))
    return target


@pytest.fixture(scope="module")
def packages(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pinned_alone(shipped / "requirements.txt", tmp_path_factory.mktemp("pinned") / "packages")


def alone(tiny: World, folder: Path, packages: Path, state: Path) -> Alone:
    """With a copy of the online features: an embedded profile keeps them in files."""
    state.mkdir()
    for path in (tiny.profile.online_path, tiny.profile.live_path):
        shutil.copy(path, state)
    return Alone(folder, packages, state)


def test_it_serves_exactly_that_version_with_the_pinned_packages_alone(
    tiny: World, shipped: Path, packages: Path, tmp_path: Path
) -> None:
    with running(tiny.profile, "desk") as process:
        expected = Client(process.url).predict(ROWS, NOON)
    tiny.tracking.promote("late", 2)
    try:
        here = alone(tiny, shipped, packages, tmp_path / "state")
        with here.running() as url:
            client = Client(url)
            assert client.predict(ROWS, NOON) == expected  # to the bit, whatever the registry says meanwhile
            assert client.model()["version"] == "1"
            event = {"trip": "early", "line": 7, "delay": 8.0, "known_at": NOON}
            assert client.ingest({"arrivals": [event]}) == []
            assert client.label([Truth(prediction_id="hot", value=1, known_at=NOON)]) == 1
    finally:
        tiny.tracking.promote("late", 1)
    assert PredictionLog(tmp_path / "state" / "log").ids("desk", NOON.date()) == {"hot", "cold"}
    assert not (tmp_path / "state" / "mlflow").exists()
    assert {path.name for path in shipped.iterdir()} == {
        path.name for path in copied(shipped, tmp_path / "c").iterdir()
    }


def test_a_changed_file_is_told_and_nothing_starts(tiny: World, shipped: Path, packages: Path, tmp_path: Path) -> None:
    folder = copied(shipped, tmp_path / "changed")
    forged(folder / "model")
    here = alone(tiny, folder, packages, tmp_path / "state")
    done = subprocess.run(
        here.command(), env=here.environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert f"error: the files of version 1 of late in {folder}/model are not those that were registered" in done.stdout
    assert "Traceback" not in done.stderr
    done = subprocess.run(
        [*here.command()[:-1], str(tmp_path)], env=here.environment, capture_output=True, text=True, check=False
    )
    assert "holds no manifest of an image" in done.stdout


def test_it_does_not_listen_to_others_without_keys(tiny: World, shipped: Path, packages: Path, tmp_path: Path) -> None:
    here = alone(tiny, shipped, packages, tmp_path / "state")
    done = subprocess.run(
        here.command("--host", "0.0.0.0"), env=here.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "service desk has no keys, so it does not listen on 0.0.0.0" in done.stdout


@pytest.mark.long
def test_bentoml_builds_it(tiny: World, shipped: Path, tmp_path: Path) -> None:
    folder, home = copied(shipped, tmp_path / "context"), tmp_path / "bentoml"
    own = {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "ML_PLATFORM_HOME": str(tmp_path / "state")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **own}
    command = [str(Path(sys.executable).with_name("bentoml")), "build", "--version", "v1"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    bento = home / "bentos" / "desk" / "v1"
    assert digests(bento / "src" / "model") == dict(Shipped.read(shipped).digests)
    assert "lightgbm==" in (bento / "env" / "python" / "requirements.txt").read_text()
    dockerfile = (bento / "env" / "docker" / "Dockerfile").read_text()
    assert "USER bentoml" in dockerfile
    assert "ML_PLATFORM_HOME" in dockerfile
