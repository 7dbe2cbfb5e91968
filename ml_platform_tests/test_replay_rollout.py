"""The replay through shadow and canary: a better model takes over by evidence, and a kill changes nothing."""

import json
import random
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.stores.ledger_kinds import BEGIN, PROMOTION, ROLLOUT
from ml_platform_tests.replay_world import (
    LAST,
    TripsHome,
    eve,
    folder,
    midnight_after,
    shared,
    without,
)
from ml_platform_tests.trips.world import SHIFTS_ON

pytestmark = pytest.mark.long
__all__ = ["folder"]
SHIPPING = "ml_platform_tests.trips_shipping"
UNTIL = LAST + timedelta(days=1)  # a day of rollout, and one of the new champion


def shipped(folder: Path) -> TripsHome:
    """The world shifted, and was replayed to ``UNTIL`` without a disturbance."""

    def make(home: TripsHome) -> None:
        copied = eve(folder).copy(home.path, SHIPPING)
        summary = copied.run(UNTIL, behaviour="shifted")
        (home.path / "summary.json").write_text(json.dumps(summary))

    return TripsHome(shared(folder, "shipped", make).path, SHIPPING)


def test_a_better_model_takes_over_step_by_step(folder: Path) -> None:
    home = shipped(folder)
    summary = json.loads((home.path / "summary.json").read_text())
    assert [event["version"] for event in summary["promotions"]] == ["1", "2"]
    assert "its rollout was won" in summary["promotions"][1]["reason"]
    assert (summary["predictions_doubled"], summary["values_mismatched"], summary["failures"]) == (0, 0, [])
    lines = [line for kind in (BEGIN, ROLLOUT, PROMOTION) for line in home.ledger(kind, "late")]
    assert [line.kind for line in lines] == ["begin", "rollout", "promotion", "promotion"]
    begun, half = lines[0].at, lines[1].at
    assert midnight_after(SHIFTS_ON) <= begun < half < midnight_after(LAST) <= lines[3].at
    answers = home.table("predictions/desk", UNTIL)
    assert set(answers.filter(pl.col("asked_at") < half)["variant"]) == {"champion"}
    trial = answers.filter(pl.col("asked_at").is_between(half, midnight_after(LAST), closed="left"))
    assert set(trial.group_by("variant", "model_version", "chance").len().drop("len").rows()) == {
        ("champion", "1", 0.5),
        ("canary", "2", 0.5),
    }
    after = answers.filter(pl.col("asked_at") >= lines[3].at)
    assert set(after.select("variant", "model_version", "chance").rows()) == {("champion", "2", 1.0)}
    assert after.height > 50
    page = (home.path / "reports" / "rollout-desk-1.html").read_text()
    assert "version 2 over version 1" in page
    assert "data:image/png;base64," in page


def test_killed_in_its_midst_a_rollout_tells_the_same_story(folder: Path, tmp_path: Path) -> None:
    home, draw = eve(folder).copy(tmp_path / "home", SHIPPING), random.Random(5)
    begins = midnight_after(SHIFTS_ON)
    for hours in (1, 7, 14):
        sitting = home.start("run", "--until", str(UNTIL), behaviour="shifted")
        moment = begins + timedelta(hours=hours + draw.randrange(4))
        sitting.until(lambda moment=moment: home.clock() >= moment)  # type: ignore[misc]
        sitting.kill()
        assert sitting.service_ended()
    summary = home.run(UNTIL, behaviour="shifted")
    undisturbed = shipped(folder)
    told = json.loads((undisturbed.path / "summary.json").read_text())
    found, expected = (one.table("predictions/desk", UNTIL) for one in (home, undisturbed))
    by_chance = ("answered_at", "seconds")
    assert without(found, *by_chance).rows() == without(expected, *by_chance).rows()
    assert [event["version"] for event in summary["promotions"]] == [event["version"] for event in told["promotions"]]
    kinds = [[line.at for line in one.ledger(ROLLOUT, "late")] for one in (home, undisturbed)]
    assert kinds[0] == kinds[1]
