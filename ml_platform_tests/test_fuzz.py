"""Wrong requests of all kinds to a real service: a refusal each, and the service goes on."""

import json
from collections.abc import Iterator

import pytest

from ml_platform.bench.fuzz import by_hand, described
from ml_platform.bench.fuzz_bodies import Fuzz
from ml_platform.serving.client import Client
from ml_platform.serving.process import ServiceProcess, running
from ml_platform_tests.serving_world import NOON, ROW, World, standard

MOMENT = NOON.isoformat()
RIGHT = {
    "/predict": {"rows": [ROW, {**ROW, "trip": "t2", "line": None}], "asked_at": MOMENT},
    "/label": {"labels": [{"prediction_id": "t1", "value": 1, "known_at": MOMENT}]},
    "/ingest": {"events": {"arrivals": [{"trip": "t1", "line": 70, "delay": 3.0, "known_at": MOMENT}]}},
    "/model": {},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def served(tiny: World) -> Iterator[ServiceProcess]:
    with running(tiny.profile, "desk") as process:
        yield process


def test_a_seed_makes_the_same_requests_again() -> None:
    first, second = Fuzz(RIGHT, 1), Fuzz(RIGHT, 1)
    made = [first.wrong() for _ in range(300)]
    assert made == [second.wrong() for _ in range(300)]
    assert len({wrong.sent for wrong in made}) > 200
    assert RIGHT["/model"] == {}  # what they are made of stays as it is


@pytest.mark.parametrize("seed", range(3))
def test_wrong_requests_are_refused_and_break_nothing(served: ServiceProcess, seed: int) -> None:
    found = by_hand(served.port, RIGHT, 300, seed)
    assert found.broken == []
    assert found.statuses[400] > 100
    assert Client(served.url).predict([{**ROW, "trip": f"after {seed}"}], NOON).model_version == "1"
    assert "Exception in ASGI application" not in served.log.read_text()


def test_what_it_says_of_itself_makes_no_request_that_breaks_it(served: ServiceProcess) -> None:
    pytest.importorskip("schemathesis")
    found = described(served, 100)
    assert found.broken == []
    assert found.total >= 50
    assert json.dumps([*found.statuses])
