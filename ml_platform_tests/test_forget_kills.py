"""Forgetting that is killed anywhere: nothing goes on with half of it, and the same command ends it the same way."""

import random
import time
from pathlib import Path

import pytest

from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Ledger
from ml_platform_tests.forget_world import forget, places_of, records_of, tables_of
from ml_platform_tests.replay_world import PACKAGE, TripsHome, eve
from ml_platform_tests.trips.world import SHIFTS_ON

pytestmark = pytest.mark.long

LINE, TRIP = "C", "20240308-41"


def _begun(home: TripsHome) -> bool:
    return any((home.path / "forgotten").glob("begun-*.json"))


def _kill_within(home: TripsHome, entity: str, seconds: float) -> bool:
    """Begin, and kill -9 so long after the note of it is there; returns whether it had ended before."""
    sitting = home.start("forget", entity, "--yes")
    deadline = time.monotonic() + 60
    while not _begun(home) and sitting.process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(seconds)
    ended = sitting.process.poll() is not None
    sitting.kill()
    assert "Traceback" not in sitting.said()
    return ended


def _nothing_goes_on(home: TripsHome, name: str) -> None:
    for command in (["run"], ["serve", "--port", "0"], ["ingest", "ended"]):
        said = home.refused(*command).said
        assert f"forgetting a {name} in {home.path} was cut off" in said
        assert f"`ml-platform forget {name}=<the same value> --yes` again" in said
    assert TRIP not in "".join(path.read_text() for path in (home.path / "forgotten").glob("*.json"))


@pytest.mark.parametrize("entity", [f"trip={TRIP}", pytest.param(f"line={LINE}", marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_same_command_ends_it(home: TripsHome, folder: Path, entity: str) -> None:
    undisturbed = eve(folder).copy(home.path.with_name("undisturbed"))
    for each in (home, undisturbed):
        body = {"version": "1", "by": "ann", "reason": f"{entity} looked fine"}
        Ledger(each.profile.ledger_path).write("approval", "late", "v1", each.clock(), body)
    assert forget(undisturbed, entity, "--yes").code == 0
    draw, kills = random.Random(entity), 0
    for _ in range(5):
        kills += not _kill_within(home, entity, draw.uniform(0, 2.2))
        if not _begun(home):
            break
        if kills == 1:
            _nothing_goes_on(home, entity.partition("=")[0])
    assert kills > 0
    done = forget(home, entity, "--yes")
    assert done.code == 0, done.said
    assert not _begun(home)
    Home(home.path).prepare(PACKAGE)

    found, expected = tables_of(home), tables_of(undisturbed)
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert found[name].equals(rows), name
    for stream in ("predictions", "labels"):
        assert records_of(home, stream) == records_of(undisturbed, stream)
    assert [entry.body["models"] for entry in home.ledger("forgetting", "trips")] == [
        entry.body["models"] for entry in undisturbed.ledger("forgetting", "trips")
    ]
    ledger = Ledger(home.profile.ledger_path)
    assert ledger.verify().passed
    assert [line.redacted for line in ledger.entries("approval", "late")] == [("reason",)]
    assert len(ledger.entries("redaction", "late")) == 1
    if entity == f"trip={TRIP}":
        assert places_of(home.path, TRIP) == []
    assert home.run(SHIFTS_ON)["values_mismatched"] == 0


def test_a_source_that_does_not_answer_is_told_and_the_rest_is_ended_when_it_does(home: TripsHome) -> None:
    stopped = home.refused("forget", f"trip={TRIP}", "--yes", behaviour="absent")
    assert "SourceError: the trips' depot does not answer" in stopped.said
    assert _begun(home)
    _nothing_goes_on(home, "trip")
    done = forget(home, f"trip={TRIP}", "--yes")
    assert done.code == 0, done.said
    assert places_of(home.path, TRIP) == []
