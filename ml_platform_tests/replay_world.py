"""State folders of the trips project, driven by the real command in processes of its own."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.replay.state import ReplayState, state_path
from ml_platform.resources.profiles import Profile
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform_tests.trips import project
from ml_platform_tests.trips.world import FOUND_LATER, NY, PLANNED_AHEAD, SEED, SHIFTS_ON, trips

PACKAGE = "ml_platform_tests.trips"
ROOT = Path(__file__).parent.parent
FIRST = project.serves_from
LAST = SHIFTS_ON + timedelta(days=1)  # the shift's own day is judged at its end; on the next one a new model answers
STARTED = day_start(FIRST, NY) + timedelta(hours=5)
SECONDS = 240  # for one sitting, on a machine that is busy with other tests
_SERVICE = "ml_platform.serving.child"


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code and what it said."""

    code: int
    said: str


class Sitting:
    """A running `ml-platform`, leader of a process group as in a terminal."""

    def __init__(self, home: Path, arguments: tuple[str, ...], behaviour: str, project: str) -> None:
        self.home = home
        self._log = home.with_name(f"{home.name}.{time.monotonic_ns()}.log")
        environment = {
            **os.environ,
            "ML_PLATFORM_HOME": str(home),
            "ML_PLATFORM_PROJECT": project,
            "TRIPS_BEHAVIOUR": behaviour,
            "PYTHONPATH": str(ROOT),
        }
        command = [str(Path(sys.executable).with_name("ml-platform")), *arguments]
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                command, env=environment, cwd=home.parent, stdout=out, stderr=out, start_new_session=True
            )

    def wait(self, seconds: int = SECONDS) -> Done:
        """Its end; by force when it takes too long."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not done after {seconds} s:\n{self.said()[-4000:]}") from None
        return Done(code, self.said())

    def said(self) -> str:
        return self._log.read_text()

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is the case while it runs."""
        deadline = time.monotonic() + SECONDS
        while not reached():
            assert self.process.poll() is None, (
                f"ended with {self.process.returncode} too early:\n{self.said()[-4000:]}"
            )
            assert time.monotonic() < deadline, self.said()[-4000:]
            time.sleep(0.005)

    def kill(self) -> None:
        """kill -9 of the driver and what runs in its group; the service is not in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def interrupt(self) -> Done:
        """Ctrl-C, which a terminal sends to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def service_ended(self) -> bool:
        """Whether no service of this driver lives any more; it has a few seconds."""
        deadline = time.monotonic() + 20
        while _services(self.process.pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def has_service(self) -> bool:
        return bool(_services(self.process.pid))


def _services(driver: int) -> list[int]:
    """Living service processes whose command names this parent."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile; an ended one that nobody waited for has no words either
        if _SERVICE in words and words[words.index("--parent") + 1] == str(driver):
            found.append(int(folder.name))
    return found


@dataclass(frozen=True)
class TripsHome:
    """A state folder; what it holds is read with the platform's own stores."""

    path: Path
    package: str = PACKAGE

    @property
    def profile(self) -> Profile:
        return Profile.at(self.path, project=self.package)

    @property
    def lake(self) -> Lake:
        return Lake(self.profile.lake)

    def start(self, *arguments: str, behaviour: str = "stationary", project: str | None = None) -> Sitting:
        return Sitting(self.path, arguments, behaviour, project or self.package)

    def run(self, until: date, *, behaviour: str = "stationary") -> dict[str, Any]:
        """Replay to the end of that day; the summary that --json holds."""
        target = self.path.with_name(f"{self.path.name}.json")
        sitting = self.start("run", "--until", str(until), "--json", str(target), behaviour=behaviour)
        done = sitting.wait()
        assert done.code == 0, done.said[-6000:]
        assert sitting.service_ended()
        summary: dict[str, Any] = json.loads(target.read_text())
        return summary

    def refused(self, *arguments: str, behaviour: str = "stationary", project: str = PACKAGE) -> Done:
        """A command that must fail, in words and not with a traceback."""
        done = self.start(*arguments, behaviour=behaviour, project=project).wait()
        assert done.code != 0, done.said
        assert "Traceback" not in done.said, done.said
        return done

    def clock(self) -> datetime:
        """The replayed moment; long ago if there is none yet."""
        path = self.profile.clock_path
        if not path.exists():
            return datetime.min.replace(tzinfo=UTC)
        return datetime.fromisoformat(json.loads(path.read_text())["now"])

    def table(self, name: str, until: date) -> pl.DataFrame:
        """A table's rows of the days up to ``until``, in the order of their key (the first column)."""
        rows = self.lake.scan(name, last=until).collect()
        return rows.sort(rows.columns[0])

    def ledger(self, kind: str, subject: str) -> list[Entry]:
        return Ledger(self.profile.ledger_path).entries(kind, subject)

    def champion(self) -> int:
        """What the registry's alias names."""
        address = self.profile.mlflow_uri.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(address)) as db:
            query = "SELECT version FROM registered_model_aliases WHERE name = 'late' AND alias = 'champion'"
            ((version,),) = db.execute(query).fetchall()
        return int(version)

    def copy(self, target: Path, package: str | None = None) -> "TripsHome":
        """The same state elsewhere. MLflow's database alone holds addresses of files that are read again.

        package: of another project with the same tables, views and models.
        """
        shutil.copytree(self.path, target)
        with contextlib.closing(sqlite3.connect(target / "mlflow" / "mlflow.db")) as db, db:
            for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for _, column, kind, *_ in db.execute(f"PRAGMA table_info({table})").fetchall():
                    if kind.startswith(("VARCHAR", "TEXT")):
                        change = f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?)"
                        db.execute(change, (str(self.path), str(target), str(self.path)))
        if package:
            mark = target / "ml_platform.json"
            mark.write_text(mark.read_text().replace(f'"{self.package}"', f'"{package}"'))
        return TripsHome(target, package or self.package)


def shared(folder: Path, name: str, make: Callable[[TripsHome], None]) -> TripsHome:
    """A state folder that is made once for all test processes of a run; only read or copied by tests."""
    home = TripsHome(folder / name)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / f"{name}.made").exists():
            shutil.rmtree(home.path, ignore_errors=True)
            make(home)
            (folder / f"{name}.made").touch()
    return home


def midnight_after(day: date) -> datetime:
    """The UTC moment at which the trips' day ends."""
    return day_start(day + timedelta(days=1), NY)


def without(rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The rows without the partition and these columns."""
    return rows.drop(PARTITION, *columns)


def folder_of_the_run(base: Path) -> Path:
    """One folder for all processes of a test run; ``base`` is pytest's own for this one."""
    made = (base.parent if base.name.startswith("popen-") else base) / "trips"
    made.mkdir(exist_ok=True)
    return made


def eve(folder: Path) -> TripsHome:
    """With a first model and all days served until the eve of the shift, after a bootstrap that was killed."""

    def make(home: TripsHome) -> None:
        _kill_left_halves(home)
        _keep(home, home.run(SHIFTS_ON - timedelta(days=1)))

    return shared(folder, "eve", make)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the state folders are that all processes of a test run share."""
    return folder_of_the_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def home(tmp_path: Path, folder: Path) -> Iterator[TripsHome]:
    """A copy of the eve of the shift, to do anything to."""
    yield eve(folder).copy(tmp_path / "home")
    shutil.rmtree(tmp_path)


def shifted(folder: Path) -> TripsHome:
    """The world shifted, and was replayed to ``LAST`` without a disturbance."""
    return shared(
        folder, "shifted", lambda home: _keep(home, eve(folder).copy(home.path).run(LAST, behaviour="shifted"))
    )


def _kill_left_halves(home: TripsHome) -> None:
    """What a kill in the bootstrap leaves: databases half made, which their makers cannot go on with."""
    Home(home.path).prepare(PACKAGE)
    ReplayState(started=STARTED).save(state_path(home.path))
    for path, table in (("mlflow/mlflow.db", "_alembic_tmp_datasets"), ("dagster/history/event_log.db", "kvs")):
        (home.path / path).parent.mkdir(parents=True)
        with contextlib.closing(sqlite3.connect(home.path / path)) as db:
            db.execute(f"CREATE TABLE {table} (half INTEGER)")


def _keep(home: TripsHome, summary: dict[str, Any]) -> None:
    (home.path / "summary.json").write_text(json.dumps(summary))


def _world(behaviour: str, until: date) -> pl.DataFrame:
    """Every trip that is known by then, with when it is asked about and its truth."""
    days = days_between(project.starts, until + PLANNED_AHEAD + timedelta(days=1))
    rows = pl.concat(trips(day, SEED, behaviour) for day in days)
    truth = (pl.col("minutes_late") >= 10).cast(pl.Int64)
    return rows.with_columns(asked_at=pl.col("leaves") - timedelta(hours=1), value=truth).sort("trip")


def assert_whole(home: TripsHome, behaviour: str, until: date) -> None:
    """Everything was asked once, every truth that is known arrived, and the raw tables are the sources."""
    end = midnight_after(until)
    world = _world(behaviour, until)
    questions = world.filter(pl.col("asked_at").is_between(STARTED, end, closed="left"))
    answers = home.table("predictions/desk", until)
    assert answers.select("prediction_id", "asked_at").rows() == questions.select("trip", "asked_at").rows()
    known = questions.filter(pl.col("ended_at") < end)
    assert known.filter(pl.col("ended_at") > pl.col("leaves") + FOUND_LATER).height > 0
    labels = home.table("labels/desk", until)
    assert (
        labels.select("prediction_id", "value", "known_at").rows() == known.select("trip", "value", "ended_at").rows()
    )
    for table, known_at in (("asked", "planned_at"), ("ended", "ended_at")):
        raw = without(home.table(f"raw/{table}", until))
        source = world.filter(pl.col(known_at) < end).with_columns(known_at=known_at)
        assert raw.rows() == source.select(raw.columns).rows()
