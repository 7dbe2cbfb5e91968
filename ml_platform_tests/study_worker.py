"""A process that works on a study of something cheap: ``python -m ml_platform_tests.study_worker FOLDER TRIALS``."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_platform.spec import Between, Search
from ml_platform.training.study import open_study, work

SPACE = {"x": Between(-4.0, 4.0), "n": Between(1, 9), "kind": ("round", "square")}
DEFAULTS = {"x": 3.0, "n": 4, "kind": "square"}
NAME = "cheap"


def cheap(parameters: Mapping[str, Any], heard: Callable[[int, float], None]) -> float:
    """Three steps with a little sleep, so that a kill may fall into any."""
    loss = 0.0
    for step in range(3):
        time.sleep(0.01)
        loss = (parameters["x"] - 1) ** 2 + abs(parameters["n"] - 5) + (parameters["kind"] == "square")
        heard(step, loss + step / 10)
    return loss


def main() -> None:
    folder, trials = Path(sys.argv[1]), int(sys.argv[2])
    study = open_study(NAME, f"sqlite:///{folder}/studies.db", 7)
    work(study, Search(space=SPACE, trials=trials), DEFAULTS, cheap, folder / "studies.lock")


if __name__ == "__main__":
    main()
