"""A rollout's steps, its traffic and its file."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.serving.rollout import Look, Standing, against, judged, waits_for
from ml_platform.serving.traffic import CANARY, CHAMPION, Split, place
from ml_platform.spec import HomeDamaged
from ml_platform.spec.rollouts import ERRORS, LATENCY, LOSS, BusinessMetric, RolloutPolicy
from ml_platform.stores.rollout_state import Rollout, RolloutFile

NOW = datetime(2013, 4, 1, 12, tzinfo=UTC)
POLICY = RolloutPolicy(service="delay", shadow_units=100, step_units=10, step_time=timedelta(hours=1))
BEGUN = Rollout(
    number=1,
    change=1,
    model="delay",
    champion="1",
    canary="2",
    phase="shadow",
    step=-1,
    share=0.0,
    begun=NOW,
    since=NOW,
    reason="it passed the gate",
)


def look(at: timedelta, *, shadowed: int = 0, answered: int = 0, **standings: Standing) -> Look:
    return Look(at=NOW + at, standings=standings, shadowed=shadowed, answered=answered)


def in_step(step: int, **changes: Any) -> Rollout:
    return replace(BEGUN, phase="canary", step=step, share=POLICY.steps[step], **changes)


def test_no_step_is_taken_without_data() -> None:
    """Time alone moves nothing; a rollout that never sees an answer is aborted, not promoted."""
    assert judged(POLICY, BEGUN, look(timedelta(days=13))) is BEGUN
    ended = judged(POLICY, BEGUN, look(timedelta(days=15)))
    assert (ended.phase, ended.share) == ("aborted", 0.0)
    assert "shadow: 0 of 100 answers" in ended.reason


def test_the_way_of_a_good_version() -> None:
    """Shadow, 1, 5, 25, 50 %, and all, each when its units and its time are there."""
    rollout, seen = BEGUN, []
    sure = {LOSS: Standing(in_favour=25.0, canary=50, champion=50)}
    for hour in range(1, 40):
        rollout = judged(POLICY, rollout, look(timedelta(hours=hour), shadowed=100, answered=10, **sure))
        if not seen or seen[-1] != (rollout.phase, rollout.share):
            seen.append((rollout.phase, rollout.share))
    assert seen == [("canary", 0.01), ("canary", 0.05), ("canary", 0.25), ("canary", 0.5), ("won", 0.5)]
    assert "25" in rollout.reason
    assert not rollout.runs
    assert judged(POLICY, rollout, look(timedelta(days=99))) is rollout


@pytest.mark.parametrize(
    ("changes", "seen", "waits"),
    [
        ({}, {"answered": 9}, "9 of 10 units"),
        ({"since": NOW + timedelta(hours=1, minutes=30)}, {"answered": 10}, "1:00:00 of time"),
    ],
)
def test_a_step_wants_its_units_and_its_time(changes: dict[str, Any], seen: dict[str, int], waits: str) -> None:
    rollout, now = in_step(0, **changes), look(timedelta(hours=2), **seen)
    assert judged(POLICY, rollout, now) is rollout
    assert waits in waits_for(POLICY, rollout, now)


def test_it_wins_only_by_evidence() -> None:
    """The last step is not left by time and units: each metric promoted on must say that the canary is not worse."""
    policy = replace(POLICY, promote_on=(LOSS, ERRORS))
    rollout = in_step(3)
    sure, unsure = Standing(in_favour=20.0), Standing(in_favour=19.9)
    now = look(timedelta(hours=9), answered=1000, loss=sure, errors=unsure)
    assert judged(policy, rollout, now) is rollout
    assert "errors 19.9 of 20" in waits_for(policy, rollout, now)
    assert judged(policy, rollout, look(timedelta(hours=9), answered=1000, loss=sure)) is rollout
    assert judged(policy, rollout, look(timedelta(hours=9), answered=1000, loss=sure, errors=sure)).phase == "won"


@pytest.mark.parametrize("rollout", [BEGUN, in_step(0), in_step(3), in_step(2, resting=True)])
def test_evidence_rolls_back_at_any_step(rollout: Rollout) -> None:
    """Also in the shadow and while it is paused; by the mean of the guards' e-values, so one alone needs four times."""
    bad = Standing(against=78.0, sentence="9 of 100 failed, 1 of 900 of the champion's")
    now = look(timedelta(minutes=1), errors=bad)
    assert against(POLICY, now) == pytest.approx((78 + 3) / 4)
    ended = judged(POLICY, rollout, now)
    assert (ended.phase, ended.share) == ("rolled_back", 0.0)
    assert "errors: 9 of 100 failed" in ended.reason
    assert judged(POLICY, rollout, look(timedelta(minutes=1), errors=Standing(against=76.9))) == rollout


def test_a_paused_rollout_stays() -> None:
    rollout = in_step(1, resting=True)
    now = look(timedelta(days=1), answered=500, loss=Standing(in_favour=99.0))
    assert judged(POLICY, rollout, now) is rollout
    assert "operator" in waits_for(POLICY, rollout, now)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"errors": False, "latency": False, "loss": False, "promote_on": ()}, "no guard"),
        ({"steps": ()}, "no steps"),
        ({"steps": (0.5, 0.1)}, "growing shares"),
        ({"steps": (0.0, 0.1)}, "growing shares"),
        ({"steps": (0.1, 1.0)}, "growing shares"),
        ({"promote_on": ("cost",)}, "none of its guards"),
        ({"promote_on": ()}, "no data would be a pass"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"margin": 1.0}, "margin=1.0"),
        ({"loss": False}, "promotes on 'loss'"),
        (
            {"metrics": {LATENCY: BusinessMetric(value=pl.lit(0.0), low=0, high=1, margin=0.1, description="")}},
            "name of a",
        ),
        ({"metrics": {"cost": BusinessMetric(value=pl.lit(0.0), low=1, high=1, margin=0.1, description="")}}, "bounds"),
    ],
)
def test_a_policy_that_could_not_work_says_why(changes: dict[str, Any], named: str) -> None:
    assert not POLICY.problems()
    assert named in "; ".join(replace(POLICY, **changes).problems())


def test_places_are_uniform_and_of_the_unit_alone() -> None:
    units = [[f"flight {n}"] for n in range(20_000)]
    places = sorted(place("delay/1", unit) for unit in units)
    # Kolmogorov-Smirnov's distance to the uniform; its 99.9 % point is 1.95 / sqrt(n).
    assert max(abs(at - n / len(places)) for n, at in enumerate(places)) < 1.95 / len(places) ** 0.5
    assert place("delay/1", ["JFK", 1]) == place("delay/1", ["JFK", 1])
    assert len({place("delay/1", ["JFK", 1]), place("delay/1", ["JFK", "1"]), place("delay/2", ["JFK", 1])}) == 3
    assert len({place("s", ["a", "b"]), place("s", ["ab", ""]), place("s", ["", "ab"])}) == 3


def test_a_growing_share_keeps_whom_it_had() -> None:
    rows = [{"route": f"{n % 500}", "flight": n} for n in range(5000)]
    before: set[int] = set()
    for share in (0.0, *POLICY.steps):
        split = Split(by=("route",), share=share, salt="delay/1")
        now = {row["flight"] for row in rows if split.variant(row) == CANARY}
        assert before <= now
        assert {row["route"] for row in rows if row["flight"] in now}.isdisjoint(
            row["route"] for row in rows if row["flight"] not in now
        )
        before = now
    assert 0.4 < len(before) / len(rows) < 0.6
    assert split.probability(CANARY) == 0.5
    assert Split(by=("route",)).variant(rows[0]) == CHAMPION
    assert Split(by=("route",)).probability(CHAMPION) == 1.0


def test_the_file_holds_what_was_put_there(tmp_path: Path) -> None:
    file = RolloutFile(tmp_path / "delay" / "rollout.json")
    assert file.read() is None
    assert file.change(lambda stands: stands) is None
    assert file.change(lambda _: replace(BEGUN, change=99)) == BEGUN
    moved = file.change(lambda stands: stands and replace(stands, share=0.25, evidence={"loss": {"against": 1.5}}))
    assert moved is not None
    assert moved.change == 2
    assert file.read() == moved
    assert file.change(lambda stands: stands) == moved
    file.path.write_text('{"number": 1}')
    with pytest.raises(HomeDamaged, match=r"rollout\.json does not hold a rollout"):
        file.read()


_ADDS = """
import sys
from dataclasses import replace
from pathlib import Path
from ml_platform.stores.rollout_state import RolloutFile
file = RolloutFile(Path(sys.argv[1]))
while True:
    file.change(lambda stands: replace(stands, step=stands.step + 1))
"""


def test_killed_writers_lose_and_tear_nothing(tmp_path: Path) -> None:
    """Each change adds one to the step, so a lost or torn one shows: two writers, one after the other killed."""
    file = RolloutFile(tmp_path / "rollout.json")
    file.change(lambda _: replace(BEGUN, step=1))
    draw = random.Random(7)
    running = [subprocess.Popen([sys.executable, "-c", _ADDS, str(file.path)], env=os.environ) for _ in range(2)]
    deadline = time.monotonic() + 30
    while (stands := file.read()) and stands.step < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(6):
        time.sleep(0.1 + 0.2 * draw.random())
        running[0].send_signal(signal.SIGKILL)
        running[0].wait()
        stands = file.read()
        assert stands is not None
        assert stands.step == stands.change > 1
        running = [running[1], subprocess.Popen([sys.executable, "-c", _ADDS, str(file.path)], env=os.environ)]
    for process in running:
        process.kill()
        process.wait()
