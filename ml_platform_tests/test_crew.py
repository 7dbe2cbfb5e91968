"""Several workers on one port, in real processes: replaced when they end or are to be, and none left behind."""

import http.client
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.bench.fire_world import Foreground, foreground
from ml_platform.serving.client import Client
from ml_platform.serving.crew import Crew, child_command
from ml_platform.serving.process import listen, running
from ml_platform.spec import ServiceError
from ml_platform.stores.home import lives
from ml_platform_tests.rollout_world import POLICIES
from ml_platform_tests.serving_world import NOON, ROW, World, standard

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("crew"), POLICIES)


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)


def asked(tiny: World, port: int, names: list[str]) -> Counter[str]:
    """How many of these questions, each over a connection of its own, were answered by each process."""
    for name in names:
        assert Client(f"http://127.0.0.1:{port}").predict([{**ROW, "trip": name}], NOON).probabilities
    found: Counter[str] = Counter()
    for path in (tiny.profile.log_path / "predictions" / "desk").glob("*/*.log"):
        found[path.name.split("-")[0]] += sum(f'"id":"{name}"' in path.read_text() for name in names)
    return found


def metric(port: int, name: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return sum(float(value) for value in re.findall(rf"^{name}{{.*}} (\S+)$", text, re.M))


def gauges(tiny: World) -> set[int]:
    folder = tiny.profile.home / "bentoml" / "desk" / "prometheus"
    return {int(re.findall(r"\d+", path.stem)[-1]) for path in folder.glob("gauge_live*.db")}


def referees(served: Foreground) -> list[int]:
    children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    return [int(child) for child in children if int(child) not in served.workers()]


def test_workers_share_a_port_and_what_ends_is_started_again_and_replaced(tiny: World) -> None:
    """One story, as each start takes seconds: kill, what is counted and seen by all, the referee, SIGHUP, SIGTERM."""
    with foreground(tiny.profile, "desk", 2) as served:
        first = served.workers()
        assert len(first) == 2
        names = [f"trip {n}" for n in range(60)]
        by = asked(tiny, served.port, names)
        assert {int(pid) for pid, count in by.items() if count} <= set(first)
        # what one worker was told counts in the answers of all
        event = {"trip": "e", "line": 9, "delay": 4.0, "known_at": NOON - timedelta(hours=1, minutes=30)}
        Client(f"http://127.0.0.1:{served.port}").ingest({"arrivals": [event]})
        for n in range(20):
            Client(f"http://127.0.0.1:{served.port}").predict([{**ROW, "trip": f"after {n}", "line": 9}], NOON)
        after = tiny.log.predictions("desk").filter(pl.col("prediction_id").str.starts_with("after"))
        assert {features[-1] for features in after["features"]} == {4.0}

        time.sleep(0.6)  # counts are handed over a few times a second; what is not yet goes with a kill
        killed = first[0]
        os.kill(killed, signal.SIGKILL)
        served.wait(lambda: killed not in served.workers() and len(served.answering()) == 2, "another worker")
        assert served.lines(f"worker {killed} ended with code -9; another one is started") == 1
        until(lambda: killed not in gauges(tiny))
        counted = metric(served.port, "ml_platform_turn_questions_total")
        assert counted == 80  # what the killed one had counted counts on
        assert metric(served.port, "ml_platform_requests_in_flight") <= 1

        (referee,) = referees(served)
        os.kill(referee, signal.SIGKILL)
        served.wait(lambda: served.lines("the referee ended with code -9; another one is started") == 1, "a referee")
        assert metric(served.port, "ml_platform_turn_questions_total") >= counted  # its start clears nothing

        before = set(served.workers())
        (referee,) = referees(served)
        served.process.send_signal(signal.SIGHUP)
        served.wait(lambda: served.lines("service desk was replaced") == 1, "new workers")
        assert before.isdisjoint(served.workers())
        assert len(served.workers()) == 2
        assert referees(served) != [referee]
        assert gauges(tiny) <= set(served.workers())
        assert asked(tiny, served.port, ["at last"]).total() == 1
        everybody = [*served.workers(), *referees(served)]
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
        assert not any(map(lives, everybody))


def test_nobody_outlives_a_killed_parent(tiny: World) -> None:
    with foreground(tiny.profile, "desk", 2) as served:
        everybody = [*served.workers(), *referees(served)]
        assert len(everybody) == 3
        served.process.kill()
        until(lambda: not any(map(lives, everybody)), 20)


def test_a_replacement_that_does_not_start_leaves_the_old_workers(tiny: World) -> None:
    """And a service whose workers end as soon as they are started ends with what they said."""
    declared = tiny.profile.home.parent / "tiny" / "services" / "desk.py"
    text = declared.read_text()
    with foreground(tiny.profile, "desk", 1) as served:
        (worker,) = served.workers()
        try:
            declared.write_text("broken = nonsense\n")
            served.process.send_signal(signal.SIGHUP)
            served.wait(lambda: served.lines("the workers that answer stay") == 1, "a word about it")
            assert served.workers() == [worker]
            assert asked(tiny, served.port, ["as before"]).total() == 1
            os.kill(worker, signal.SIGKILL)
            assert served.process.wait(120) == 1
        finally:
            declared.write_text(text)
    assert served.lines("5 workers ended one after the other as soon as they were started")
    assert served.lines("name 'nonsense' is not defined")


def test_a_worker_that_does_not_answer_in_time_is_told_of(tiny: World, tmp_path: Path) -> None:
    with running(tiny.profile, "desk", workers=2) as process:
        assert len(process.crew.workers) == 2
        assert Client(process.url).predict([ROW], NOON).model_version == "1"
        environment = process.crew.environment
    with listen("127.0.0.1", 0) as listening:
        crew = Crew(
            name="desk",
            command=child_command("desk", refereed=False),
            environment=environment,
            listening=listening,
            log=tmp_path / "log.txt",
            metrics=tmp_path,
        )
        try:
            with pytest.raises(ServiceError, match=r"did not answer on http://127.0.0.1:.* within 0 s"):
                crew.wait(crew.launch(), timedelta(0))
        finally:
            crew.stop()
        assert crew.workers == []
