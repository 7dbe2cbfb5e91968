"""However a replay ends, the same command goes on, and the story that the tables tell is the same."""

import json
import random
import re
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ml_platform_tests.replay_world import (
    LAST,
    Sitting,
    TripsHome,
    midnight_after,
    shifted,
    without,
)
from ml_platform_tests.trips.world import SHIFTS_ON

pytestmark = pytest.mark.long


def _clock_reaches(home: TripsHome, sitting: Sitting, moment: datetime, delay: float) -> None:
    """Until the replay's clock stands there, and so many seconds more."""
    sitting.until(lambda: home.clock() >= moment)
    if delay:
        ends = time.monotonic() + delay
        sitting.until(lambda: time.monotonic() >= ends)


def test_killed_and_interrupted_a_replay_tells_the_same_story(home: TripsHome, folder: Path) -> None:
    draw = random.Random(2013)
    tick = midnight_after(SHIFTS_ON)  # trains, judges, promotes
    kills = [(tick - timedelta(hours=9), 0.2), (tick, 6.0)]
    for moment, within in kills:
        sitting = home.start("run", "--until", str(LAST), behaviour="shifted")
        _clock_reaches(home, sitting, moment, draw.uniform(0, within))
        assert sitting.has_service()
        sitting.kill()
        assert sitting.service_ended()

    sitting = home.start("run", "--until", str(LAST), behaviour="shifted")
    _clock_reaches(home, sitting, tick + timedelta(hours=3), 0)
    done = sitting.interrupt()
    assert done.code == 130, done.said[-4000:]
    assert re.search(r"interrupted; the same command goes on at 2024-03-10 \d\d:00 UTC", done.said)
    assert "Traceback" not in done.said
    assert sitting.service_ended()

    summary = home.run(LAST, behaviour="shifted")
    _assert_same(home, summary, shifted(folder))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_from_the_first_second_on_a_replay_tells_the_same_story(
    tmp_path: Path, folder: Path, seed: int
) -> None:
    expected, draw, home = shifted(folder), random.Random(seed), TripsHome(tmp_path / "home")
    for _ in range(8):
        sitting = home.start("run", "--until", str(LAST), behaviour="shifted")
        ends = time.monotonic() + draw.uniform(0.3, 40)
        while time.monotonic() < ends and sitting.process.poll() is None:
            time.sleep(0.02)
        sitting.kill()
        assert sitting.service_ended()
        assert "Traceback" not in sitting.said()
    _assert_same(home, home.run(LAST, behaviour="shifted"), expected)


def _assert_same(home: TripsHome, summary: dict[str, object], undisturbed: TripsHome) -> None:
    """Row for row; of a model that was registered twice because a kill fell between, only the number may differ."""
    told = json.loads((undisturbed.path / "summary.json").read_text())
    for table in ("predictions/desk", "labels/desk", "raw/asked", "raw/ended"):
        found, expected = home.table(table, LAST), undisturbed.table(table, LAST)
        by_chance = [name for name in ("answered_at", "model_version") if name in found.columns]
        assert without(found, *by_chance).rows() == without(expected, *by_chance).rows(), table
    same = ("days", "predictions", "predictions_doubled", "labels", "judged", "auc", "log_loss", "values_compared")
    assert {name: summary[name] for name in same} == {name: told[name] for name in same}
    assert summary["values_mismatched"] == 0
    assert summary["failures"] == []
    reasons = [[body["reason"] for body in events] for events in (summary["retrainings"], told["retrainings"])]
    assert set(reasons[0]) == set(reasons[1])
    decided = [[(e.key, e.body["answer"]) for e in one.ledger("decision", "lateness")] for one in (home, undisturbed)]
    assert decided[0] == decided[1]
