"""`ml-platform backfill`: what it says and refuses, killed at any moment, and how much memory it holds."""

import json
import random
import shutil
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from polars.testing import assert_frame_equal

from ml_platform import asset_keys
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.automation.made import reporter
from ml_platform.cli import main
from ml_platform.features.windows import AS_OF
from ml_platform.resources.projects import load_project
from ml_platform.sources.ingest import ingest
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home, read_json
from ml_platform_tests import backfill_world
from ml_platform_tests.replay_world import PACKAGE, ROOT, TripsHome
from ml_platform_tests.trips import project as trips_declared

NEW_YORK = trips_declared.timezone


@pytest.fixture
def home(tmp_path: Path) -> TripsHome:
    """The trips project's raw tables of a month and two days."""
    return with_raw_days(TripsHome(tmp_path / "home"), date(2024, 3, 31))


def with_raw_days(home: TripsHome, last: date) -> TripsHome:
    Home(home.path).prepare(PACKAGE)
    project = load_project(PACKAGE)
    for table in project.tables.values():
        ingest(table, home.lake, project.starts, last, day_start(last + timedelta(days=1), NEW_YORK), NEW_YORK)
    return home


def command(home: TripsHome, *words: str) -> Result:
    environment = {"ML_PLATFORM_HOME": str(home.path), "ML_PLATFORM_PROJECT": PACKAGE}
    return CliRunner().invoke(main, ["backfill", *words], env=environment)


def test_the_command_says_what_it_made_and_dagster_knows(home: TripsHome) -> None:
    write_dagster_yaml(home.profile.dagster_home, replayed=False)
    done = command(home, "--all")
    assert done.exit_code == 0, done.output
    assert "line_past 2024-02-26 to 2024-02-29: " in done.output
    assert done.output.endswith("made planned: 35 days, 2024-02-26 to 2024-03-31\n")
    assert command(home, "--all").output.startswith("nothing is left to do")
    with open_instance(home.profile.dagster_home) as instance:
        known = instance.get_materialized_partitions(asset_keys.features("line_past"))
    assert known == {str(day) for day in days_between(trips_declared.starts, date(2024, 3, 31))}
    corrected = command(home, "--after-correction", "2024-03-30", "--table", "ended", "--again")
    assert corrected.output.endswith("made line_past: 2 days, 2024-03-30 to 2024-03-31\n"), corrected.output


def test_on_replayed_time_dagster_is_told_nothing(home: TripsHome) -> None:
    write_dagster_yaml(home.profile.dagster_home, replayed=True)
    Clock(home.profile.clock_path).set(day_start(date(2024, 3, 20), NEW_YORK))
    done = command(home, "line_past")
    assert done.output.endswith("made line_past: 23 days, 2024-02-26 to 2024-03-19\n"), done.output
    with open_instance(home.profile.dagster_home) as instance:
        assert instance.get_materialized_partitions(asset_keys.features("line_past")) == set()
    with reporter(home.path / "nowhere", replayed=False) as report:
        report("line_past", [], {})
    assert not (home.path / "nowhere").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("lin_past",), 1, "there is no feature view named 'lin_past'; did you mean line_past?"),
        (("leaving",), 1, "leaving is computed when it is asked, so there is nothing to make anew; leave it out"),
        (("line_past", "--from", "2023-12-31"), 1, "MissingHistory: 2023-12-31 is outside the days"),
        (("line_past", "--from", "2024-03-09", "--to", "2024-03-01"), 1, "--from 2024-03-09 is after --to 2024-03-01"),
        (("line_past", "--from", "yesterday"), 2, "'yesterday' is not a date like 2013-05-31"),
        ((), 2, "give VIEWS, --all, or --after-correction DAY"),
        (("line_past", "--all"), 2, "give VIEWS or --all, and not both"),
        (("--after-correction", "2024-03-01", "--to", "2024-03-02"), 2, "finds the days itself"),
        (("line_past", "--table", "ended"), 2, "--table says which table --after-correction is about"),
    ],
)
def test_what_the_command_refuses(home: TripsHome, words: tuple[str, ...], code: int, says: str) -> None:
    done = command(home, *words)
    assert (done.exit_code, says in done.output) == (code, True), done.output
    assert not home.lake.exists("features/line_past")


def test_a_folder_in_use_is_left_alone(home: TripsHome) -> None:
    with Home(home.path).locked("run"):
        done = command(home, "--all")
    assert done.exit_code == 1
    assert "HomeLocked: " in done.output
    assert "is in use by `ml-platform run`" in done.output
    assert not home.lake.exists("features/line_past")


# Killed


def finished(home: TripsHome) -> int:
    """Days that the records hold."""
    records = (home.path / "backfill").glob("*.json")
    return sum(len(read_json(path)["finished"]) for path in records)


def test_killed_at_any_moment_it_goes_on_and_ends_as_if_undisturbed(tmp_path: Path) -> None:
    last, draw = date(2024, 6, 20), random.Random(2024)
    home = with_raw_days(TripsHome(tmp_path / "home"), last)
    undisturbed = TripsHome(shutil.copytree(home.path, tmp_path / "undisturbed"))
    pieces = [line for line in command(undisturbed, "--all").output.splitlines() if not line.startswith("made")]
    assert len(pieces) == 2 * 5
    days = (last - trips_declared.starts).days + 1
    said = []
    for more in (0, draw.randint(1, 60), draw.randint(1, 60)):  # days; the first one at the very beginning
        reached = finished(home) + more
        sitting = home.start("backfill", "--all")
        sitting.until(lambda reached=reached: (home.path / "lake" / "features").exists() and finished(home) >= reached)
        time.sleep(draw.uniform(0, 0.08))
        assert sitting.process.poll() is None, sitting.said()
        sitting.kill()
        said.append(sitting.said())
        assert finished(home) < 2 * days
    done = home.start("backfill", "--all").wait()
    assert done.code == 0, done.said
    assert finished(home) == 2 * days
    for view, key in (("line_past", "line"), ("planned", "trip")):
        found, expected = (one.lake.scan(f"features/{view}").collect().sort(key, AS_OF) for one in (home, undisturbed))
        assert_frame_equal(found, expected, check_exact=True)
        # Version 0 is the empty table; each kill may have fallen between a piece's commit and its record.
        assert 5 <= home.lake.version(f"features/{view}") <= 5 + len(said)
    # A piece is said once it is remembered, and then not done again; a kill may fall between these two.
    told = [line for text in [*said, done.said] for line in text.splitlines() if line in pieces]
    assert len(told) == len(set(told))
    assert len(told) >= len(pieces) - len(said)
    assert command(home, "--all").output.startswith("nothing is left to do")


# Memory

GROWS_BY_AT_MOST = 1.25  # of what three months take; allocators keep some of what was freed


def test_memory_does_not_grow_with_the_range(tmp_path: Path) -> None:
    assert backfill_world.fill(tmp_path).count("raw/events") > 1_000_000
    words = [sys.executable, "-m", backfill_world.__name__, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(done.stdout)
    assert found["rows"] == found["rows_made"] > 300_000
    three, twelve, at_once = (found[name] - found["start"] for name in ("three", "twelve", "at_once"))
    assert twelve <= GROWS_BY_AT_MOST * three, found
    assert at_once > 2 * twelve, found  # so much would show
