"""The application before BentoML's, in real services: ids, counters, overload, a Redis that hangs, an orderly end."""

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prometheus_client import CollectorRegistry

from ml_platform.features.follow import followed
from ml_platform.serving import Client
from ml_platform.serving.access import Access
from ml_platform.serving.desk import Answered, Desk, Question
from ml_platform.serving.front import Front, _Waiting
from ml_platform.serving.meters import Meters
from ml_platform.serving.process import ServiceProcess, listen, running
from ml_platform.serving.refusals import status_of
from ml_platform.spec import TooLate
from ml_platform.stores.online_redis import RedisOnlineStore
from ml_platform.stores.tiles_redis import RedisTiles
from ml_platform_tests.redis_server import Server
from ml_platform_tests.serving_world import FILES, NOON, ROW, World, said_whole, standard, world

DAY = NOON.date()
FEW = {
    "tiny/services/desk.py": FILES["tiny/services/desk.py"].replace("max_rows=20", "max_rows=20, most_waiting=3"),
}


def ask(port: int, name: str, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    return send(port, "/predict", {"rows": [{**ROW, "trip": name}], "asked_at": NOON.isoformat()}, **headers)


def send(port: int, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, content, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return response.status, told, json.loads(response.read())
    finally:
        connection.close()


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("front"))


@pytest.fixture(scope="module")
def served(tiny: World) -> Iterator[ServiceProcess]:
    with running(tiny.profile, "desk") as process:
        yield process


def test_an_id_comes_back_or_is_made(served: ServiceProcess) -> None:
    assert ask(served.port, "a", **{"x-request-id": "abc-1/2"})[1]["x-request-id"] == "abc-1/2"
    made = [ask(served.port, "a")[1]["x-request-id"] for _ in range(3)]
    assert len(set(made)) == 3
    long = ask(served.port, "a", **{"x-request-id": "x" * 500})[1]["x-request-id"]
    assert long != "x" * 500
    status, told, body = send(served.port, "/predict", {"rows": []}, **{"x-request-id": "wrong-1"})
    assert (status, told["x-request-id"]) == (400, "wrong-1")
    assert body["error"] == "rows: is empty; send at least one"
    lines = [line for line in served.log.read_text().splitlines() if '"request_id": "wrong-1"' in line]
    logged = json.loads(lines[0][lines[0].index("{") :])
    assert (logged["status"], logged["endpoint"]) == (400, "/predict")
    assert logged["reason"] == "rows: is empty; send at least one"


def test_the_answer_names_no_other_server_and_other_bodies_go_bentomls_way(served: ServiceProcess) -> None:
    assert "server" not in ask(served.port, "a")[1]  # BentoML names itself in every answer of its own
    body = {"rows": [{**ROW, "trip": "slow"}]}
    for headers in ({"Content-Type": "text/json"}, {"Content-Type": "Application/JSON; charset=utf-8"}):
        status, told, found = send(served.port, "/predict", body, **headers)
        assert (status, found["model_version"]) == (200, "1")
        assert told["server"] == "BentoML Service/desk"
    assert send(served.port, "/predict", b"\x80", **{"Content-Type": "application/vnd.bentoml+pickle"})[0] == 415
    twice = b'{"rows": [{"line": "no", "line": 7, "trip": "twice", "city": "Rome"}]}'
    assert send(served.port, "/predict", twice)[0] == 200


def test_metrics_count_every_endpoint_and_status_and_what_was_shared(served: ServiceProcess) -> None:
    time.sleep(0.6)  # they are handed over a few times a second
    before = metrics(served.port)
    with ThreadPoolExecutor(8) as pool:
        assert {status for status, *_ in pool.map(lambda n: ask(served.port, f"m{n}"), range(80))} == {200}
    send(served.port, "/predict", {"rows": []})
    send(served.port, "/label", {"labels": []})
    send(served.port, "/model", {})
    time.sleep(0.6)
    after = metrics(served.port)

    def more(name: str, **labels: str) -> float:
        key = (name, tuple(sorted({"service": "desk", **labels}.items())))
        return after.get(key, 0.0) - before.get(key, 0.0)

    assert more("ml_platform_requests_total", endpoint="/predict", status="200") == 80
    assert more("ml_platform_requests_total", endpoint="/predict", status="400") == 1
    assert more("ml_platform_requests_total", endpoint="/label", status="400") == 1
    assert more("ml_platform_requests_total", endpoint="/model", status="200") == 1
    assert more("ml_platform_request_seconds_count", endpoint="/predict") == 81
    assert more("ml_platform_request_seconds_bucket", endpoint="/predict", le="+Inf") == 81
    assert more("ml_platform_turn_questions_total") == 80
    assert 0 < more("ml_platform_turns_total") <= 80
    assert after["ml_platform_requests_waiting", (("service", "desk"),)] == 0


def metrics(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    status, text = get(port, "/metrics")
    assert status == 200
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(ml_platform_\w+)\{(.*)\} (\S+)", line)
        if match:
            labels = tuple(sorted(re.findall(r'(\w+)="([^"]*)"', match[2])))
            found[match[1], labels] = float(match[3])
    return found


def test_a_body_that_comes_in_parts_is_answered(served: ServiceProcess) -> None:
    body = json.dumps({"rows": [{**ROW, "trip": "parts"}]}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    for start in range(0, len(body), 20):
        connection.send(body[start : start + 20])
        time.sleep(0.02)
    response = connection.getresponse()
    assert response.status == 200
    assert json.loads(response.read())["predictions"][0]["prediction_id"] == "parts"
    connection.close()


@pytest.mark.parametrize("path", ["/predict", "/label"])
@pytest.mark.parametrize("begun", [b"{", b""])
def test_a_body_that_never_ends_is_given_up(served: ServiceProcess, path: str, begun: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", "100")
    connection.endheaders(begun or None)
    response = connection.getresponse()
    assert response.status == 408
    assert "did not arrive within 2 s" in response.read().decode()
    connection.close()


def test_a_body_in_several_parts_is_refused(served: ServiceProcess) -> None:
    """BentoML answers 500 to it."""
    for kind in ("multipart/form-data", "Multipart/form-data; boundary=x"):
        for path in ("/predict", "/label", "/ingest", "/model"):
            status, _, body = send(served.port, path, b"{}", **{"Content-Type": kind})
            assert (status, body["error"]) == (415, "send the body as application/json")


def test_the_next_answer_over_a_kept_connection_is_the_last_when_the_service_ends(tiny: World) -> None:
    """And only a connection that stays idle is closed without one."""
    with running(tiny.profile, "idle") as process:
        kept = [http.client.HTTPConnection("127.0.0.1", process.port, timeout=20) for _ in range(3)]
        for connection in kept:
            connection.request("GET", "/livez")
            assert connection.getresponse().read() is not None
        process.child.terminate()
        time.sleep(0.5)
        for connection, (method, path) in zip(kept[:2], [("GET", "/livez"), ("POST", "/label")], strict=True):
            connection.request(method, path, "{}" if method == "POST" else None)
            response = connection.getresponse()
            assert (response.status, response.getheader("connection")) == ((200 if method == "GET" else 400), "close")
            response.read()
        assert kept[2].sock is not None
        assert kept[2].sock.recv(1) == b""
        process.child.wait(10)


# On Redis


@pytest.fixture
def on_redis(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, ServiceProcess]]:
    """The tiny project with its stored features and live windows on a Redis of its own; three requests may wait."""
    with world(tmp_path, FEW) as made:
        tiny = World(replace(made.profile, name="production", redis_url=server.url))
        for name, value in {
            "ML_PLATFORM_LAKE": tiny.profile.lake,
            "ML_PLATFORM_MLFLOW_URI": tiny.profile.mlflow_uri,
            "ML_PLATFORM_MLFLOW_ARTIFACTS": tiny.profile.mlflow_artifacts,
            "ML_PLATFORM_POSTGRES_URL": "postgresql+psycopg2://nobody@127.0.0.1/serving_needs_none",
            "ML_PLATFORM_REDIS_URL": server.url,
        }.items():
            monkeypatch.setenv(name, value)
        loads = [{"city": "Rome", "load": 0.9, "newest": 3}, {"city": "Oslo", "load": 0.1, "newest": 4}]
        frame = pl.DataFrame(loads).with_columns(pl.lit(NOON.replace(minute=0)).alias("as_of"))
        RedisOnlineStore(server.url, "tiny").publish(tiny.project.views["city_load"], frame, NOON)
        past = {"trip": "before", "line": 7, "delay": 0.3, "known_at": NOON - timedelta(hours=1)}
        tiles = RedisTiles(server.url, "tiny")
        said_whole(tiny.project, tiles)
        followed(tiny.project, tiles, lambda: NOON).apply("arrivals", pl.DataFrame([past]))
        tiny.tracking.promote("late", tiny.register(tiny.trained(tmp_path / "v1")).version)
        with running(tiny.profile, "desk") as process:
            yield tiny, process


def test_redis_may_hang_or_be_away_and_the_service_goes_on(
    on_redis: tuple[World, ServiceProcess], server: Server
) -> None:
    tiny, process = on_redis
    assert ask(process.port, "first")[0] == 200
    (logged,) = tiny.log.predictions("desk", first=DAY, last=DAY)["features"].to_list()
    assert logged == [0.9, 3.0, 0.3]  # of both stores
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask, process.port, f"hung{n}") for n in range(3)]
        time.sleep(0.3)
        began = time.monotonic()
        assert get(process.port, "/livez")[0] == 200  # nobody stands behind those that wait
        status, told, body = ask(process.port, "too many")
        assert time.monotonic() - began < 1
        assert (status, told["retry-after"]) == (503, "1")
        assert "3 requests wait already" in body["error"]
        answers = [each.result() for each in waiting]
    # Those that came while the first was being answered never had their turn.
    assert {status for status, *_ in answers} <= {503, 504}
    assert 503 in {status for status, *_ in answers}
    says = {503: "timed out", 504: "turn did not come within 2 s"}
    assert all(says[status] in body["error"] for status, _, body in answers)
    server.process.send_signal(signal.SIGCONT)
    assert ask(process.port, "again")[0] == 200
    server.kill()
    assert ask(process.port, "away")[0] == 503
    assert tiny.log.ids("desk", DAY) == {"first", "again"}


def test_what_is_under_way_is_answered_before_the_service_ends(
    on_redis: tuple[World, ServiceProcess], server: Server
) -> None:
    tiny, process = on_redis
    assert ask(process.port, "first")[0] == 200
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, process.port, f"under way {n}") for n in range(2)]
        time.sleep(0.3)
        process.child.terminate()
        time.sleep(0.3)
        server.process.send_signal(signal.SIGCONT)
        assert [each.result()[0] for each in waiting] == [200, 200]
    process.child.wait(15)
    assert tiny.log.ids("desk", DAY) == {"first", "under way 0", "under way 1"}


# BentoML's own command


@pytest.mark.long
def test_bentomls_own_command_serves_it_with_ours_before(tiny: World) -> None:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    home = tiny.profile.home
    own = {"ML_PLATFORM_HOME": str(home), "ML_PLATFORM_PROJECT": "tiny", "BENTOML_HOME": str(home / "bentoml")}
    binary = Path(sys.executable).with_name("bentoml")
    command = [binary, "serve", "ml_platform.serving.bento:desk", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, **own, "BENTOML_DO_NOT_TRACK": "True"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 90
            while True:
                try:
                    status, told, _ = ask(port, "by bentoml")
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    assert process.poll() is None
                    time.sleep(0.2)
            assert status == 200
            assert "server" not in told
            assert "x-request-id" in told
            assert Client(f"http://127.0.0.1:{port}").predict([{**ROW, "trip": "again"}], NOON).model_version == "1"
            time.sleep(0.6)
            counted = {key: value for key, value in metrics(port).items() if key[0] == "ml_platform_requests_total"}
            assert sum(counted.values()) == 2
            assert get(port, "/docs.json")[0] == 200
        finally:
            process.terminate()
            process.wait(30)


def test_the_client_is_there_under_a_short_name_without_anything_heavy() -> None:
    code = (
        "import sys; from ml_platform.serving import Client; Client('http://127.0.0.1:1'); "
        "print(sorted({'bentoml', 'lightgbm', 'torch', 'mlflow', 'pandas', 'dagster', 'feast'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_whoever_waited_too_long_is_told_so_and_nothing_is_logged_of_it(tiny: World) -> None:
    desk = Desk.open(tiny.profile, "desk")

    async def nobody(*_: object) -> None:
        raise AssertionError("not asked")

    access, meters = Access.of(tiny.profile, "desk"), Meters("desk", CollectorRegistry())
    front = Front(nobody, lambda: desk, meters, 65536, lambda: NOON, access)
    questions = [Question(desk.champion(), [{**ROW, "trip": name}], NOON) for name in ("in time", "too late", "soon")]
    began = time.perf_counter()
    waited = [began, began - 2.5, began - 1.0]
    turn = [_Waiting(*each) for each in zip(questions, waited, strict=True)]
    good, late, soon = asyncio.run(front._answer(turn))
    desk.log.close()
    assert isinstance(late, TooLate)
    assert (status_of(late), "within 2 s" in str(late)) == (504, True)
    assert [each.ids for each in (good, soon) if isinstance(each, Answered)] == [["in time"], ["soon"]]
    assert {"in time", "soon"} <= tiny.log.ids("desk", DAY)
    assert "too late" not in tiny.log.ids("desk", DAY)
