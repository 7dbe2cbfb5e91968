"""The main loop on a second project: whole, idle where nothing changes, retraining where something does, unkillable."""

import base64
import json
import re
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform import metrics
from ml_platform.features.follow import Delivered
from ml_platform.replay.hours import Hours
from ml_platform.resources.projects import load_project
from ml_platform.serving.access import key_file
from ml_platform.serving.events import Ingestor
from ml_platform.spec import SourceError
from ml_platform.spec.calendar import days_between
from ml_platform.stores.delta import Lake
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.model_files import digests, said_of
from ml_platform.stores.prediction_log import PredictionLog
from ml_platform.stores.tracking import Tracking
from ml_platform_tests.replay_world import (
    FIRST,
    LAST,
    PACKAGE,
    TripsHome,
    assert_whole,
    eve,
    midnight_after,
    shifted,
)
from ml_platform_tests.trips.world import SHIFTS_ON

FEATURES = 8


# Nothing changes


def test_a_stationary_world_is_answered_whole_and_nothing_is_retrained(home: TripsHome) -> None:
    first = json.loads((home.path / "summary.json").read_text())
    assert (first["days"], first["first_day"], first["last_day"]) == (3, "2024-03-06", "2024-03-08")
    before = _state(home)
    assert home.run(SHIFTS_ON - timedelta(days=1)) == first
    assert _state(home) == before

    profile, until = home.profile, SHIFTS_ON
    key_file(profile, "desk").add("ann", ["predict"], home.clock(), lambda: None)  # its own service asks for none
    summary = home.run(until)
    assert_whole(home, "stationary", until)
    tracking = Tracking(profile.mlflow_uri, profile.mlflow_artifacts)
    files = tracking.download(tracking.champion("late"), home.path)
    assert said_of(Ledger(profile.ledger_path), "late", "1") == digests(files)
    answers = home.table("predictions/desk", until)
    assert summary["predictions"] == answers.height
    assert summary["predictions_doubled"] == 0
    assert summary["labels"] == home.table("labels/desk", until).height
    assert (summary["first_day"], summary["last_day"], summary["days"]) == ("2024-03-06", "2024-03-09", 4)
    assert summary["values_compared"] == FEATURES * answers.height
    assert summary["values_mismatched"] == 0
    assert summary["retrainings"] == summary["refusals"] == summary["failures"] == []
    assert [(event["date"], event["version"]) for event in summary["promotions"]] == [("2024-03-06", "1")]
    assert summary["auc"] > 0.85
    assert summary["seconds"] >= summary["work_seconds"] > 0
    decided = {entry.key: entry.body for entry in home.ledger("decision", "lateness")}
    assert list(decided) == [str(day) for day in days_between(FIRST, until)]
    assert {body["answer"] for body in decided.values()} == {"unknown", "wait"}
    assert re.search(r"times version 1's first 2 days .* 1.7 is borne", decided["2024-03-09"]["reason"])
    _assert_page(home, summary)


def _state(home: TripsHome) -> tuple[object, ...]:
    root = home.path / "lake"
    tables = [str(path.parent.relative_to(root)) for path in root.rglob("_delta_log")]
    logs = {path: path.read_bytes() for path in home.profile.log_path.rglob("*.log")}
    return {name: home.lake.version(name) for name in tables}, logs, (home.path / "replay.json").read_bytes()


def _assert_page(home: TripsHome, summary: dict[str, object]) -> None:
    page = (home.path / "reports" / "replay.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 4
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert f"{summary['predictions']:,} (0 doubled)" in page
    assert "times version 1&#x27;s first 2 days" in page


# Something changes


def test_a_shift_is_answered_with_a_better_champion_on_evidence_from_late_labels(
    folder: Path,
) -> None:
    home = shifted(folder)
    assert_whole(home, "shifted", LAST)
    summary = json.loads((home.path / "summary.json").read_text())
    retraining, *others = summary["retrainings"]
    assert others == []
    assert (retraining["date"], retraining["version"]) == ("2024-03-10", "2")
    found = re.fullmatch(
        r"late labels: log-loss ([\d.]+) on 2024-03-08 to 2024-03-09 \((\d+) labels\), ([\d.]+) times version 1's "
        r"first 2 days \(([\d.]+) from 2024-03-07\); more than 1.7",
        retraining["reason"],
    )
    assert found, retraining["reason"]
    now, labels, ratio, before = map(float, found.groups())
    assert labels > 120
    assert ratio == pytest.approx(now / before, abs=0.01)
    assert [event["version"] for event in summary["promotions"]] == ["1", "2"]
    assert summary["promotions"][1]["reason"].startswith("it beats the champion by +")
    assert home.champion() == 2
    assert summary["champion"] == "2"
    assert summary["values_compared"] == FEATURES * summary["predictions"]
    assert summary["values_mismatched"] == 0
    assert summary["failures"] == []

    answers = home.table("predictions/desk", LAST)
    swapped = midnight_after(SHIFTS_ON)
    by_version = answers.group_by("model_version").agg(pl.col("asked_at").min().alias("from"), pl.col("asked_at").max())
    versions = {version: (first, last) for version, first, last in by_version.iter_rows()}
    assert set(versions) == {"1", "2"}
    assert versions["1"][1] < swapped <= versions["2"][0]
    judged = answers.join(home.table("labels/desk", LAST), on="prediction_id").drop_nulls("value")
    losses = {
        day: metrics.log_loss(part["value"].to_numpy(), part["probability"].to_numpy())
        for (day,), part in judged.group_by(["known_date"])
    }
    assert losses[LAST] < losses[SHIFTS_ON]

    decided = {entry.key: entry.body for entry in home.ledger("decision", "lateness")}
    assert list(decided) == [str(day) for day in days_between(FIRST, LAST)]
    assert [key for key, body in decided.items() if body["answer"] == "retrain"] == [str(SHIFTS_ON)]
    assert all(len(body["reason"]) > 40 and "version" in body["reason"] for body in decided.values())


# Bad input


@pytest.mark.parametrize("until", ["2024-02-30", "tomorrow"])
def test_a_word_that_is_no_date_is_a_usage_error(tmp_path: Path, until: str) -> None:
    done = TripsHome(tmp_path / "home").refused("run", "--until", until)
    assert done.code == 2
    assert f"'{until}' is not a date like 2013-05-31" in done.said
    assert not (tmp_path / "home").exists()


def test_a_date_outside_names_the_days_that_can_be_had(tmp_path: Path) -> None:
    done = TripsHome(tmp_path / "home").refused("run", "--until", "2024-03-05")
    assert done.code == 1
    assert "a day from 2024-03-06 to 2024-03-31; 2024-03-05 is outside: choose another --until" in done.said
    assert not (tmp_path / "home").exists()


def test_an_unknown_project_is_named(tmp_path: Path) -> None:
    done = TripsHome(tmp_path / "home").refused("run", project="ml_platform_tests.trips_to_mars")
    assert done.code == 1
    assert "cannot import 'ml_platform_tests.trips_to_mars'" in done.said
    assert "ML_PLATFORM_PROJECT" in done.said
    assert not (tmp_path / "home").exists()


def test_a_home_in_use_names_who_uses_it(tmp_path: Path) -> None:
    used = Home(tmp_path / "home")
    used.prepare(PACKAGE)
    with used.locked("run"):
        done = TripsHome(used.path).refused("run", "--until", str(FIRST))
    assert done.code == 1
    assert re.search(r"home is in use by `ml-platform run` \(process \d+\); wait for it, stop it", done.said)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("all I have")
    done = TripsHome(tmp_path / "home").refused("run", "--until", str(FIRST))
    assert done.code == 1
    assert "is not a state folder of this platform: it holds thesis.txt" in done.said
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("file", ["replay.json", "clock.json"])
def test_a_torn_file_is_named_and_nothing_is_lost(home: TripsHome, file: str) -> None:
    path = home.path / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    before = _kept(home)
    done = home.refused("run", "--until", "2024-03-09")
    assert done.code == 1
    assert f"HomeDamaged: {path} is damaged" in done.said
    assert "delete the state folder" in done.said
    assert _kept(home) == before


def _kept(home: TripsHome) -> dict[Path, bytes]:
    """What cannot be made again: the ledger, the lake, the log, the models, where the replay stands."""
    folders = (home.path / name for name in ("lake", "log", "mlflow"))
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in [*files, *home.path.glob("*.json"), home.profile.ledger_path]}


def test_a_source_that_is_missing_stops_the_bootstrap_in_words(tmp_path: Path) -> None:
    done = TripsHome(tmp_path / "home").refused("run", "--until", str(FIRST), behaviour="absent")
    assert done.code == 1
    assert re.search(r"the bootstrap failed in raw__asked: .*the trips' depot does not answer", done.said)
    assert "run the same command again" in done.said.replace("\n", " ")


def test_a_source_that_goes_missing_stops_the_hour_in_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = load_project(PACKAGE)
    profile = eve(folder).profile
    log = PredictionLog(profile.log_path)
    hours = Hours(declared, declared.services["desk"], Lake(profile.lake), log, Ingestor.open(profile), Delivered())
    midnight = midnight_after(SHIFTS_ON - timedelta(days=1))
    monkeypatch.setenv("TRIPS_BEHAVIOUR", "absent")
    with pytest.raises(SourceError, match=r"raw/asked could not be read as of 2024-03-09T06.*depot.*\n.*same command"):
        hours.ingest(midnight, midnight + timedelta(hours=1))
    monkeypatch.setenv("TRIPS_BEHAVIOUR", "stationary")
    hours.ingest(midnight, midnight + timedelta(hours=1))
    hours.close()
