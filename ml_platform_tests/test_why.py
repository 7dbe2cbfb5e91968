"""Why a model was or was not retrained: each sentence, and that nothing written later changes it."""

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.decisions import record
from ml_platform.decisions.retraining import weigh
from ml_platform.decisions.reviews import request
from ml_platform.decisions.why import why
from ml_platform.decisions.windows import Losses
from ml_platform.monitoring.drift_record import open_review
from ml_platform.spec import RetrainPolicy
from ml_platform.stores.ledger_kinds import (
    BEGIN,
    GATE,
    GATHERING,
    PROMOTION,
    REFUSAL,
    ROLLBACK,
    ROLLOUT,
    TRAINING,
)
from ml_platform.stores.ledger_lines import Lines
from ml_platform_tests.trigger_world import ListLedger, TriggerWorld

START = datetime(2024, 5, 1, 4, tzinfo=UTC)
POLICY = RetrainPolicy(name="delay", cooldown=timedelta(days=14))


class Story:
    """Lines about the model ``m``, a day after another."""

    def __init__(self) -> None:
        self.ledger, self.day = ListLedger(), 0

    @property
    def now(self) -> datetime:
        return START + timedelta(days=self.day)

    def trained(self, version: int, decision: int = 0) -> None:
        heard = self.ledger.height()
        body = {"decision": decision, "heard": heard, "manifest": {"declared": "d"}}
        self.ledger.write(GATHERING, "m", f"run {version}", self.now, body)
        body = {"version": version, "decision": decision, "heard": heard}
        self.ledger.write(TRAINING, "m", f"run {version}", self.now, body)

    def promoted(self, version: int, reason: str = "it beats the champion by +.01", before: str | None = None) -> None:
        body = {"version": str(version), "before": before, "reason": reason, "gate": 0, "alias": "champion"}
        self.ledger.write(PROMOTION, "m", f"v{version}", self.now, body)

    def decided(self, state: str, policy: RetrainPolicy = POLICY, ratio: float = 1.0) -> None:
        past = record.past(self.ledger, policy, "m", "UTC")
        losses = Losses(state=state, reason=f"late labels: {state}", measures={"ratio": ratio})  # type: ignore[arg-type]
        record.write(
            self.ledger, policy, "m", str(self.now.date()), self.now, weigh(policy, past, losses, self.now, "UTC")
        )

    def told(self) -> list[str]:
        return list(why(Lines(self.ledger.path, tuple(self.ledger.lines)), "m", self.now).sentences)


@pytest.fixture
def story() -> Story:
    """A first version that serves, and one uneventful day."""
    told = Story()
    told.trained(1)
    told.promoted(1, "the first version; it beats the constant")
    told.day = 1
    told.decided("borne")
    return told


def test_nothing_yet() -> None:
    assert Story().told() == ["By 2024-05-01 04:00 UTC the record says nothing of m."]


def test_a_quiet_day_in_the_cooldown(story: Story) -> None:
    assert story.told() == [
        "After 2024-05-02 it was decided not to retrain: late labels: borne.",
        "It can be retrained again at the earliest on 2024-05-15 04:00 UTC (the cooldown of 14 days lasts 13 more); "
        "`ml-platform retrain m --by NAME --reason WHY` does not wait for that.",
        "Version 1 has been champion since 2024-05-01 04:00 UTC: the first version; it beats the constant.",
        "It was trained on 2024-05-01 04:00 UTC, without a decision (to begin with, or by hand); none was trained "
        "since.",
    ]


def test_held_for_days_and_over_by_itself(story: Story) -> None:
    for _ in range(3):
        story.day += 1
        story.decided("bad", ratio=1.3)
    assert story.told()[:2] == [
        "After 2024-05-05 it was decided not to retrain: late labels: bad, but the cooldown of 14 days lasts 10 more.",
        "Something has asked for it since 2024-05-03, at 3 decisions in a row.",
    ]
    story.day += 1
    story.decided("borne")
    assert story.told()[1] == "Until 2024-05-05 the losses asked for it; that is over, without a retraining."
    story.day = 20
    story.decided("borne", ratio=1.04)
    assert story.told()[1] == (
        "Nothing holds a retraining back: it begins with the next decision for which the losses are above 1.1 times "
        "the first window's (now 1.04) or a person asks for it."
    )


def test_wanted_trained_refused(story: Story) -> None:
    story.day = 20
    story.decided("bad", ratio=1.3)
    assert story.told()[:2] == [
        "After 2024-05-21 it was decided to retrain: late labels: bad.",
        "The retraining that was decided after 2024-05-21 has brought no version yet: it has not begun; it is asked "
        "for again every day until one is registered.",
    ]
    story.ledger.write(GATHERING, "m", "run x", story.now, {"decision": 1, "heard": story.ledger.height()})
    assert "its training set was gathered on 2024-05-21 04:00 UTC" in story.told()[1]
    story.trained(2, decision=1)
    assert story.told()[-1] == "Version 2 was not judged yet."
    story.ledger.write(GATE, "m", "v2", story.now, {"version": 2, "state": "fail", "reason": "it is worse"})
    refused = {"version": "2", "before": "1", "reason": "it is worse", "gate": 0}
    story.ledger.write(REFUSAL, "m", "v2", story.now, refused)
    told = story.told()
    assert told[0] == "After 2024-05-21 it was decided to retrain, which has been done: late labels: bad."
    assert told[-2:] == [
        "Version 2 was trained last, on 2024-05-21 04:00 UTC, as decided after 2024-05-21 (late labels: bad).",
        "Version 2 was not promoted: it is worse.",
    ]


def test_a_rollout_and_its_end(story: Story) -> None:
    story.trained(2, decision=1)
    told = {"champion": "1", "canary": "2"}
    story.ledger.write(BEGIN, "m", "1", story.now, {**told, "number": 1, "reason": "it passed"})
    assert story.told()[-1] == "Version 2 is in its rollout over version 1, asked unseen: it passed."
    story.ledger.write(ROLLOUT, "m", "1.1", story.now, {**told, "share": 0.05, "reason": "600 were asked unseen"})
    assert story.told()[-2] == "Version 2 answers 5% beside it since 2024-05-02 04:00 UTC: 600 were asked unseen."
    assert story.told()[-1].startswith("Version 2 was trained last, ")
    story.day += 1
    story.ledger.write(ROLLBACK, "m", "1.2", story.now, {"version": "1", "before": "2", "reason": "its loss is larger"})
    assert story.told()[-1] == "Version 2 was rolled back and version 1 serves again: its loss is larger."


def test_a_champion_that_was_taken_back(story: Story) -> None:
    story.trained(2, decision=1)
    story.promoted(2, before="1")
    story.day += 1
    body = {"version": "1", "before": "2", "reason": "complaints", "by": "Ada"}
    story.ledger.write(ROLLBACK, "m", "x", story.now, body)
    assert story.told()[2] == (
        "Version 1 has been champion since 2024-05-03 04:00 UTC, again, for version 2 was taken back, said Ada: "
        "complaints."
    )


def test_a_review_waits(story: Story) -> None:
    day = story.now.date()
    line = open_review(story.ledger, "m", "drift/inputs", day, day, "miles moved", story.now)
    assert story.told()[2] == (
        f"drift/inputs drifted, which no policy answers, and waits for a word since 2024-05-02 04:00 UTC (miles "
        f"moved): `ml-platform approve m --drift {line.number} --by NAME --reason WHY` retrains, `reject` lets it be."
    )


def test_a_request_is_told_until_it_is_answered(story: Story) -> None:
    story.day += 1
    request(story.ledger, "m", "Ada", "a new route opens", story.now)
    story.decided("borne")
    asked = "Ada asked for it on 2024-05-03: a new route opens"
    assert story.told()[0] == f"After 2024-05-03 it was decided to retrain: {asked}."
    story.trained(2, decision=1)
    story.promoted(2, before="1")
    assert story.told()[-1] == (
        f"It was trained on 2024-05-03 04:00 UTC, as decided after 2024-05-03 ({asked}); none was trained since."
    )


def test_time_asks_next(story: Story) -> None:
    story.decided("borne", replace(POLICY, name="timed", cron="0 6 * * 1", cooldown=timedelta(0)))
    assert "Time asks for one on 2024-05-06 06:00 UTC." in story.told()


# Nothing that is written later is told


def test_what_is_told_of_a_moment_stays(tmp_path: Path) -> None:
    for seed in range(60):
        world = TriggerWorld(ListLedger(), random.Random(seed))
        said: list[tuple[datetime, str]] = []
        for _ in range(25):
            world.move()
            said.append((world.now, _told(world, world.now)))
        for moment, text in said:
            assert _told(world, moment) == text
        assert len({text for _, text in said}) > 5


def _told(world: TriggerWorld, moment: datetime) -> str:
    return json.dumps(why(Lines.of(world.ledger, moment), "m", moment).as_json())
