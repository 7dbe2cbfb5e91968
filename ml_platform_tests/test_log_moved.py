"""Files of the prediction log are let go once the lake holds their records, and nothing is lost by it."""

import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.resources.profiles import Profile
from ml_platform.serving.moving import kept_from, let_go_of_old, store
from ml_platform.serving.rollout_files import rollout_file
from ml_platform.spec import Service
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.log_moved import let_go, moved_days
from ml_platform.stores.prediction_log import Prediction, PredictionLog, Truth
from ml_platform.stores.rollout_state import Rollout

OLD, NEW = date(2024, 1, 10), date(2024, 2, 20)
SERVICE = Service(model="late", description="", name="desk")


def at(day: date, hour: int = 12) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def answer(name: str, day: date, probability: float = 0.5) -> Prediction:
    moment = at(day)
    return Prediction(
        prediction_id=name, model="late", model_version="1", probability=probability, asked_at=moment, as_of=moment,
        answered_at=moment, entities={"trip": name}, feature_names=("load",), features=(1.0,),
    )  # fmt: skip


class Desk:
    def __init__(self, folder: Path) -> None:
        self.lake, self.folder = Lake(str(folder / "lake")), folder / "log"

    def append(self, day: date, *names: str) -> None:
        log = PredictionLog(self.folder)
        log.append_predictions("desk", day, [answer(name, day) for name in names])
        log.close()

    def move(self, day: date) -> list[str]:
        reading = PredictionLog(self.folder).read_predictions("desk", first=day, last=day)
        store(self.lake, self.folder, "predictions", "desk", reading, [day], "UTC")
        return self.held(day)

    def held(self, day: date) -> list[str]:
        rows = self.lake.scan("predictions/desk").filter(pl.col(PARTITION) == day).collect()
        return sorted(rows["prediction_id"])

    def let_go(self) -> None:
        let_go_of_old(self.lake, self.folder, SERVICE, NEW)

    def files(self, stream: str = "predictions") -> int:
        return len(list((self.folder / stream).glob("desk/*/*.log")))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_what_the_lake_holds_is_let_go_and_the_day_can_be_made_again(desk: Desk) -> None:
    desk.append(OLD, "a", "b")
    desk.append(NEW, "c")
    desk.move(OLD), desk.move(NEW)
    desk.let_go()
    assert desk.files() == 1
    assert moved_days(desk.folder, "predictions", "desk") == {OLD}
    assert desk.move(OLD) == ["a", "b"]
    assert PredictionLog(desk.folder).ids("desk", NEW) == {"c"}


def test_an_answer_that_comes_later_joins_what_was_moved(desk: Desk) -> None:
    desk.append(OLD, "a", "b")
    desk.move(OLD)
    desk.let_go()
    desk.append(OLD, "b", "late")
    desk.let_go()
    assert desk.files() == 1  # the lake does not hold it
    assert desk.move(OLD) == ["a", "b", "late"]
    desk.let_go()
    assert (desk.files(), desk.move(OLD)) == (0, ["a", "b", "late"])


def test_what_was_never_moved_stays(desk: Desk) -> None:
    desk.append(OLD, "a")
    desk.let_go()
    assert desk.files() == 1
    desk.move(OLD)
    desk.append(OLD, "b")
    desk.let_go()
    assert desk.files() == 1
    assert desk.move(OLD) == ["a", "b"]


def test_truths_go_the_same_way_and_what_served_rollouts_just_goes(desk: Desk) -> None:
    log = PredictionLog(desk.folder)
    log.append_labels("desk", OLD, [Truth(prediction_id="a", value=1, known_at=at(OLD))])
    log.append_shadows("desk", OLD, [])
    log.close()
    desk.let_go()
    assert (desk.files("labels"), desk.files("shadow")) == (1, 0)
    store(desk.lake, desk.folder, "labels", "desk", PredictionLog(desk.folder).read_labels("desk"), [OLD], "UTC")
    desk.let_go()
    assert desk.files("labels") == 0
    assert desk.lake.scan("labels/desk").collect()["prediction_id"].to_list() == ["a"]


def test_a_file_that_somebody_writes_to_is_left_alone(desk: Desk) -> None:
    """Also by another process; otherwise what it appends would stand in a file without a name."""
    code = (
        "import sys, time; from datetime import date; from pathlib import Path; "
        "from ml_platform_tests.test_log_moved import answer, OLD; "
        "from ml_platform.stores.prediction_log import PredictionLog; "
        "log = PredictionLog(Path(sys.argv[1])); log.append_predictions('desk', OLD, [answer('a', OLD)]); "
        "print('wrote', flush=True); sys.stdin.readline(); "
        "log.append_predictions('desk', OLD, [answer('b', OLD)]); print('again', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(desk.folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin
        assert writer.stdout
        assert writer.stdout.readline() == "wrote\n"
        desk.move(OLD)
        desk.let_go()
        assert desk.files() == 1
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "again\n"
        assert desk.move(OLD) == ["a", "b"]
        writer.kill()
    deadline = time.monotonic() + 10
    while desk.files() and time.monotonic() < deadline:
        desk.let_go()
    assert (desk.files(), desk.move(OLD)) == (0, ["a", "b"])


def test_a_mark_without_a_loss_does_no_harm(desk: Desk) -> None:
    """As a kill between the two leaves it."""
    desk.append(OLD, "a")
    desk.move(OLD)
    (desk.folder / "predictions" / "desk" / str(OLD) / "moved").touch()
    assert desk.move(OLD) == ["a"]
    assert let_go(desk.folder, "predictions", "desk", OLD, lambda _: {"a"}) == []  # the day itself is kept
    assert len(let_go(desk.folder, "predictions", "desk", NEW, lambda _: {"a"})) == 1
    assert desk.move(OLD) == ["a"]


def test_how_long_files_are_kept(tmp_path: Path) -> None:
    profile = Profile.from_environment({"ML_PLATFORM_HOME": str(tmp_path)})
    assert kept_from(profile, Service(model="late", description="", name="desk", keep_log=None), at(NEW), "UTC") is None
    assert kept_from(profile, SERVICE, at(NEW), "UTC") == NEW - timedelta(days=35)
    rollout = Rollout(
        number=1, change=0, model="late", champion="1", canary="2", phase="canary", step=0, share=0.1,
        begun=at(OLD), since=at(OLD), reason="",
    )  # fmt: skip
    file = rollout_file(profile, "desk")
    file.change(lambda _: rollout)
    assert kept_from(profile, SERVICE, at(NEW), "UTC") == OLD
