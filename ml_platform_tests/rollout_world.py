"""The small project of the serving tests with a rollout policy, and traffic through its real service."""

import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from ml_platform.serving.client import Client
from ml_platform.serving.deployment import Deployment, deploy
from ml_platform.serving.rollout_way import Way
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import GATE, PROMOTION
from ml_platform.stores.prediction_log import Truth
from ml_platform.stores.rollout_state import Rollout
from ml_platform_tests.serving_world import NOON, ROW, World, standard

POLICIES = {
    "tiny/policies/__init__.py": "",
    "tiny/policies/shipping.py": """
        from datetime import timedelta
        from ml_platform.spec import RolloutPolicy
        shipping = RolloutPolicy(service="desk", shadow_units=40, step_units=5, step_time=timedelta(0),
                                 steps=(0.1, 0.5), loss_margin=0.05, description="d")
        """,
}


class Street:
    """A state folder with a champion, and candidates that may begin a rollout."""

    def __init__(self, tiny: World) -> None:
        self.tiny, self.profile = tiny, tiny.profile
        self.ledger = Ledger(self.profile.ledger_path)
        Clock(self.profile.clock_path).set(NOON)
        first = {"alias": "champion", "version": "1", "before": None, "reason": "it is the first", "gate": None}
        self.ledger.write(PROMOTION, "late", "v1", NOON - timedelta(hours=1), {**first, "approval": None})
        self._draw, self._asked = random.Random(3), 0
        self.now = NOON

    @property
    def way(self) -> Way:
        found = Way.of(self.tiny.project, "desk", self.profile)
        assert found is not None
        return found

    @property
    def rollout(self) -> Rollout:
        found = self.way.file.read()
        assert found is not None
        return found

    def judged(self, folder: Path, *, upside_down: bool = False) -> str:
        """A version that the gate let pass."""
        version = str(self.tiny.register(self.tiny.trained(folder, upside_down=upside_down)).version)
        self.passed(version)
        return version

    def passed(self, version: str) -> None:
        """The gate's line about it."""
        champion = str(self.tiny.tracking.champion_version("late"))
        body = {"version": version, "state": "pass", "reason": "it is better", "champion": champion, "measures": {}}
        self.ledger.write(GATE, "late", f"v{version}", self.now, body)

    def deploy(self) -> Deployment:
        """What the deployment's asset does."""
        service = self.tiny.project.services["desk"]
        return deploy(service, self.tiny.tracking, self.ledger, self.now, way=self.way)

    def ask(self, client: Client, count: int, *, labels: bool = True) -> dict[str, float]:
        """Questions about trips of their own and, if asked for, their truths: late as the city's load says."""
        rows, truths = [], []
        self.now += timedelta(minutes=1)
        Clock(self.profile.clock_path).set(self.now)
        for _ in range(count):
            self._asked += 1
            name, city = f"trip {self._asked}", self._draw.choice(["Rome", "Oslo"])
            rows.append({**ROW, "trip": name, "city": city})
            late = self._draw.random() < (0.9 if city == "Rome" else 0.1)
            truths.append(Truth(prediction_id=name, value=int(late), known_at=self.now))
        answers: dict[str, float] = {}
        for start in range(0, count, 5):
            answers |= client.predict(rows[start : start + 5], self.now).probabilities
        for start in range(0, count, 20):
            if labels:
                client.label(truths[start : start + 20])
        return answers

    def ask_until(self, client: Client, true: Callable[[Rollout], bool], *, at_most: int = 3000) -> Rollout:
        """Traffic until the rollout stands so."""
        for _ in range(at_most // 20):
            self.ask(client, 20)
            if true(self.rollout):
                return self.rollout
            time.sleep(0.05)
        raise AssertionError(f"did not come true: {self.rollout}")


def street(folder: Path) -> Iterator[Street]:
    """With champion version 1."""
    Home(folder / "home").prepare("tiny")
    for tiny in standard(folder, POLICIES):
        yield Street(tiny)
