"""A real MLflow registry and a ledger, without a lake: for tests of who becomes champion and what is written down."""

import contextlib
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from ml_platform.serving.approvals import Word, approve
from ml_platform.serving.deployment import Deployment, deploy
from ml_platform.spec import NoChampion, Service
from ml_platform.spec.models import Approval
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import GATE, OF_A_MODEL, TRAINING
from ml_platform.stores.tracking import Tracking

START = datetime(2024, 3, 10, 4, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
MODEL = "late"
DESK = Service(model=MODEL, description="Late or not.", name="desk")


@lru_cache
def _empty() -> Path:
    """MLflow's tables, made once a process: the migrations take seconds."""
    path = Path(mkdtemp(prefix="registry-")) / "mlflow.db"
    with contextlib.suppress(NoChampion):
        Tracking(f"sqlite:///{path}", path.parent.as_uri()).champion(MODEL)
    return path


@dataclass(frozen=True)
class Registry:
    """Where the versions of one model are; ``at`` is the platform's time."""

    folder: Path
    approval: Approval = "automatic"
    at: datetime = START

    @classmethod
    def fresh(cls, folder: Path, approval: Approval = "automatic") -> "Registry":
        """Without any version."""
        Home(folder).prepare("ml_platform_tests.trips")
        (folder / "mlflow").mkdir()
        shutil.copy(_empty(), folder / "mlflow" / "mlflow.db")
        return cls(folder, approval)

    @property
    def tracking(self) -> Tracking:
        return Tracking(f"sqlite:///{self.folder / 'mlflow' / 'mlflow.db'}", (self.folder / "mlflow").as_uri())

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger.db")

    @property
    def champion(self) -> int | None:
        try:
            return self.tracking.champion_version(MODEL)
        except NoChampion:
            return None

    def later(self, hours: float = 24) -> "Registry":
        return replace(self, at=self.at + hours * HOUR)

    def train(self) -> int:
        """A version as the platform registers one."""
        files = self.folder.with_name(f"{self.folder.name}.draft")
        files.mkdir(exist_ok=True)
        (files / "model.txt").write_text("tree")
        told: dict[str, Any] = {"estimator": "lightgbm", "run_name": "r", "parameters": {}, "metrics": {}, "tags": {}}
        version = self.tracking.register(MODEL, files, **told).version
        self.ledger.write(TRAINING, MODEL, f"run-{version}", self.at, {"version": version, "decision": 0})
        return version

    def judge(self, version: int, state: str = "pass") -> Entry:
        """The gate's verdict on it, beside the champion."""
        body = {"state": state, "reason": f"{state} because", "version": version, "champion": self.champion}
        return self.ledger.write(GATE, MODEL, f"v{version}", self.at, body)

    def deploy(self) -> Deployment:
        return deploy(DESK, self.tracking, self.ledger, self.at, approval=self.approval)

    def trained_and_judged(self, state: str = "pass") -> int:
        version = self.train()
        self.judge(version, state)
        return version

    def move_by_hand(self, version: int | None, alias: str = "champion") -> None:
        """As in MLflow's UI."""
        client = self.tracking._client
        if version is None:
            client.delete_registered_model_alias(MODEL, alias)
        else:
            client.set_registered_model_alias(MODEL, alias, str(version))

    def kinds(self) -> list[str]:
        """Of all lines about the model, in order."""
        return [line.kind for line in self.ledger.about(MODEL, OF_A_MODEL)]


def with_a_champion(folder: Path) -> Registry:
    """Version 1, for a day; what the gate lets pass is promoted."""
    made = Registry.fresh(folder)
    made.trained_and_judged()
    assert made.deploy().action == "promoted"
    return made.later()


def with_one_that_waits(folder: Path) -> Registry:
    """The same, where a person is asked; version 2 passed and waits."""
    made = Registry.fresh(folder, "person")
    made.trained_and_judged()
    approve(made.tracking, made.ledger, MODEL, 1, Word(by="ann", reason="the first"), made.at)
    assert made.deploy().action == "promoted"
    made.later().trained_and_judged()
    return made.later(25)
