"""The main loop on a second project: whole, idle where nothing changes, retraining where something does, unkillable."""

import base64
import json
import random
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform import metrics
from ml_platform.replay.hours import Hours
from ml_platform.replay.state import ReplayState, state_path
from ml_platform.resources.bound import bound
from ml_platform.resources.projects import load_project
from ml_platform.spec import SourceError
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.home import Home
from ml_platform_tests.replay_world import PACKAGE, Sitting, TripsHome, midnight_after, shared, without
from ml_platform_tests.trips import project
from ml_platform_tests.trips.world import NY, PLANNED_AHEAD, SEED, SHIFTS_ON, trips

FIRST = project.serves_from
LAST = SHIFTS_ON + timedelta(days=1)  # the shift's own day is judged at its end; on the next one a new model answers
FEATURES = 5
STARTED = day_start(FIRST, NY) + timedelta(hours=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    made = (base.parent if base.name.startswith("popen-") else base) / "trips"
    made.mkdir(exist_ok=True)
    return made


@pytest.fixture(scope="module")
def bootstrapped(folder: Path) -> TripsHome:
    """With a first model and the first day served, after a bootstrap that was killed; copied by every test."""

    def make(home: TripsHome) -> None:
        _kill_left_halves(home)
        _keep(home, home.run(FIRST))

    return shared(folder, "bootstrapped", make)


@pytest.fixture(scope="module")
def shifted(folder: Path, bootstrapped: TripsHome) -> Callable[[], TripsHome]:
    """A world that shifted, replayed without a disturbance."""

    def make(home: TripsHome) -> None:
        _keep(home, bootstrapped.copy(home.path).run(LAST, behaviour="shifted"))

    return lambda: shared(folder, "shifted", make)


@pytest.fixture
def home(tmp_path: Path, bootstrapped: TripsHome) -> Iterator[TripsHome]:
    yield bootstrapped.copy(tmp_path / "home")
    shutil.rmtree(tmp_path)


def _kill_left_halves(home: TripsHome) -> None:
    """What a kill in the bootstrap leaves: databases half made, which their makers cannot go on with."""
    Home(home.path).prepare(PACKAGE)
    ReplayState(started=STARTED).save(state_path(home.path))
    for path, table in (("mlflow/mlflow.db", "_alembic_tmp_datasets"), ("dagster/history/event_log.db", "kvs")):
        (home.path / path).parent.mkdir(parents=True)
        with closing(sqlite3.connect(home.path / path)) as db:
            db.execute(f"CREATE TABLE {table} (half INTEGER)")


def _keep(home: TripsHome, summary: dict[str, object]) -> None:
    (home.path / "summary.json").write_text(json.dumps(summary))


def _world(behaviour: str, until: date) -> pl.DataFrame:
    """Every trip that is known by then, with when it is asked about and its truth."""
    days = days_between(project.starts, until + PLANNED_AHEAD + timedelta(days=1))
    rows = pl.concat(trips(day, SEED, behaviour) for day in days)
    asked_at = pl.col("leaves") - timedelta(hours=1)
    truth = (pl.col("minutes_late") >= 10).cast(pl.Int64)
    return rows.with_columns(asked_at=asked_at, value=truth).sort("trip")


def _assert_whole(home: TripsHome, behaviour: str, until: date) -> None:
    """Everything was asked once, every truth that is known arrived, and the raw tables are the sources."""
    end = midnight_after(until)
    world = _world(behaviour, until)
    questions = world.filter(pl.col("asked_at").is_between(STARTED, end, closed="left"))
    answers = home.table("predictions/desk", until)
    assert answers.select("prediction_id", "asked_at").rows() == questions.select("trip", "asked_at").rows()
    known = questions.filter(pl.col("ended_at") < end)
    labels = home.table("labels/desk", until)
    assert (
        labels.select("prediction_id", "value", "known_at").rows() == known.select("trip", "value", "ended_at").rows()
    )
    for table, known_at in (("asked", "planned_at"), ("ended", "ended_at")):
        raw = without(home.table(f"raw/{table}", until))
        source = world.filter(pl.col(known_at) < end).with_columns(known_at=known_at)
        assert raw.rows() == source.select(raw.columns).rows()


# Nothing changes


def test_a_stationary_world_is_answered_whole_and_nothing_is_retrained(home: TripsHome) -> None:
    first = json.loads((home.path / "summary.json").read_text())
    assert (first["days"], first["first_day"], first["last_day"]) == (1, "2024-03-06", "2024-03-06")
    before = _state(home)
    assert home.run(FIRST) == first
    assert _state(home) == before

    until = FIRST + timedelta(days=3)
    summary = home.run(until)
    _assert_whole(home, "stationary", until)
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
    tables = [f"{path.parent.name}/{path.name}" for path in (home.path / "lake").glob("*/*")]
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
    shifted: Callable[[], TripsHome],
) -> None:
    home = shifted()
    _assert_whole(home, "shifted", LAST)
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


# Kills


def _clock_reaches(home: TripsHome, sitting: Sitting, moment: datetime, delay: float) -> None:
    """Until the replay's clock stands there, and so many seconds more."""
    sitting.until(lambda: home.clock() >= moment)
    if delay:
        ends = time.monotonic() + delay
        sitting.until(lambda: time.monotonic() >= ends)


def test_killed_and_interrupted_a_replay_tells_the_same_story(
    home: TripsHome, shifted: Callable[[], TripsHome]
) -> None:
    draw = random.Random(2013)
    tick = midnight_after(SHIFTS_ON)  # trains, judges, promotes
    kills = [(midnight_after(FIRST) + timedelta(hours=15), 0.1), (tick, 6.0)]
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
    _assert_same(home, summary, shifted())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_from_the_first_second_on_a_replay_tells_the_same_story(
    tmp_path: Path, shifted: Callable[[], TripsHome], seed: int
) -> None:
    expected, draw, home = shifted(), random.Random(seed), TripsHome(tmp_path / "home")
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
    done = home.refused("run", "--until", "2024-03-07")
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


def test_a_source_that_goes_missing_stops_the_hour_in_words(
    bootstrapped: TripsHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = load_project(PACKAGE)
    stores = bound(bootstrapped.profile, declared)
    hours = Hours(declared, declared.services["desk"], *(stores[name] for name in ("lake", "online", "prediction_log")))
    midnight = midnight_after(FIRST)
    monkeypatch.setenv("TRIPS_BEHAVIOUR", "absent")
    with pytest.raises(SourceError, match=r"raw/asked could not be read as of 2024-03-07T06.*depot.*\n.*same command"):
        hours.ingest(midnight, midnight + timedelta(hours=1))
    monkeypatch.setenv("TRIPS_BEHAVIOUR", "stationary")
    hours.ingest(midnight, midnight + timedelta(hours=1))
    hours.close()
