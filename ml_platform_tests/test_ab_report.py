"""A/B reports from a real prediction log."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.serving.ab import Report
from ml_platform.serving.ab_report import page, records, reports
from ml_platform.spec.calendar import day_of
from ml_platform.stores.log_tail import LogTail
from ml_platform.stores.prediction_log import PredictionLog, Truth
from ml_platform.stores.prediction_record import Failure, Prediction
from ml_platform.stores.rollout_state import Rollout
from ml_platform_tests.test_rollout_case import BEGUN, COST, POLICY, Records, traffic

STANDS = Rollout(
    number=1,
    change=3,
    model="delay",
    champion="1",
    canary="2",
    phase="canary",
    step=0,
    share=0.25,
    begun=BEGUN,
    since=BEGUN,
    reason="r",
)
LATER = BEGUN + timedelta(days=9)


def logged(folder: Path, found: Records) -> LogTail:
    """The records as the service writes them."""
    log = PredictionLog(folder)
    moment = datetime.fromisoformat
    for one in found["predictions"]:
        asked = moment(one["asked_at"])
        answer = Prediction(
            prediction_id=one["id"], model="delay", model_version=one["version"], probability=one["probability"],
            asked_at=asked, as_of=asked, answered_at=asked, entities=one["entities"], feature_names=(), features=(),
            variant=one["variant"], chance=one["chance"], seconds=one["seconds"],
        )  # fmt: skip
        log.append_predictions("desk", day_of(asked, "UTC"), [answer])
    for one in found["failures"]:
        asked = moment(one["asked_at"])
        failure = Failure(
            prediction_id=one["id"], model="delay", model_version=one["version"], asked_at=asked, answered_at=asked,
            entities=one["entities"], variant=one["variant"], chance=one["chance"], reason=one["reason"],
        )  # fmt: skip
        log.append_failures("desk", day_of(asked, "UTC"), [failure])
    for one in found["labels"]:
        known = moment(one["known_at"])
        log.append_labels(
            "desk", day_of(known, "UTC"), [Truth(prediction_id=one["id"], value=one["value"], known_at=known)]
        )
    log.close()
    return LogTail(folder, "desk", BEGUN.date())


def told(folder: Path, found: Records) -> dict[str, Report]:
    policy = replace(POLICY, metrics={"cost": COST})
    return {each.metric: each for each in reports(policy, records(policy, STANDS, logged(folder, found), LATER))}


def test_equal_versions_do_not_differ(tmp_path: Path) -> None:
    found = told(tmp_path, traffic(1500))
    assert set(found) == {"errors", "loss", "cost"}
    for report in found.values():
        assert report.split_holds
        assert report.now.low <= 0 <= report.now.high
        assert report.control.units > 1000
        assert report.treatment.units > 300
    assert "data:image/png;base64," in page(STANDS, list(found.values()))


@pytest.mark.parametrize(("changes", "metric"), [({"worse": 1.0}, "loss"), ({"failing": 0.3}, "errors")])
def test_what_differs_is_said_with_its_side(tmp_path: Path, changes: dict[str, float], metric: str) -> None:
    report = told(tmp_path, traffic(1500, **changes))[metric]
    assert report.differs
    assert report.now.low > 0


def test_units_that_do_not_arrive_as_assigned_are_noticed(tmp_path: Path) -> None:
    found = traffic(1500)
    kept = [one for n, one in enumerate(found["predictions"]) if one["variant"] != "canary" or n % 2]
    report = told(tmp_path, {**found, "predictions": kept})["loss"]
    assert not report.split_holds
    assert not report.differs


def test_before_the_first_unit_nothing_is_said_of_a_difference(tmp_path: Path) -> None:
    assert not any(report.differs for report in told(tmp_path, traffic(0)).values())
