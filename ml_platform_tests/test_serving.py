"""The service as a real BentoML child process on a free loopback port."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.serving.client import Client
from ml_platform.serving.process import ServiceProcess, running, start
from ml_platform.spec import PortInUse, RequestRefused, ServiceError, UnknownName
from ml_platform.stores.prediction_log import Truth
from ml_platform_tests.serving_world import NOON, ROW, World, standard

DAY = date(2013, 4, 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="module")
def served(tiny: World) -> Iterator[ServiceProcess]:
    with running(tiny.profile, "desk") as process:
        yield process


@pytest.fixture(scope="module")
def client(served: ServiceProcess) -> Client:
    return Client(served.url)


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)


def post(served: ServiceProcess, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def get(served: ServiceProcess, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def row(name: str, **other: str | int | None) -> dict[str, str | int | None]:
    return {**ROW, "trip": name, **other}


def test_it_answers_from_the_online_features_and_logs_what_it_answered(tiny: World, client: Client) -> None:
    rows = [row("hot"), row("cold", city="Oslo", line=None), row("strange", city="Atlantis", line=99)]
    answers = client.predict(rows, NOON)
    assert answers.model_version == "1"
    assert answers.probabilities["hot"] > 0.8 > 0.2 > answers.probabilities["cold"]
    logged = {r["prediction_id"]: r for r in tiny.log.predictions("desk", first=DAY, last=DAY).iter_rows(named=True)}
    assert {name: logged[name]["probability"] for name in answers.probabilities} == answers.probabilities
    assert logged["hot"]["feature_names"] == ["city_load__load", "city_load__newest", "line_past__delay_mean_1d"]
    assert logged["hot"]["features"] == [0.9, 3.0, 0.3]
    assert logged["cold"]["features"] == [0.1, 4.0, None]
    assert logged["strange"]["features"] == [None, None, None]
    assert json.loads(logged["cold"]["entities"]) == rows[1]
    assert (logged["hot"]["asked_at"], logged["hot"]["as_of"]) == (NOON, NOON.replace(minute=0))
    assert abs(logged["hot"]["answered_at"] - datetime.now(UTC)) < timedelta(minutes=5)


def test_without_a_moment_it_is_asked_now(tiny: World, client: Client) -> None:
    before = datetime.now(UTC)
    client.predict([row("now")])
    logged = tiny.log.predictions("desk", first=before.date() - timedelta(days=1))
    (asked,) = logged.filter(prediction_id="now")["asked_at"]
    assert before <= asked <= datetime.now(UTC)


def test_an_event_counts_in_the_next_answer(tiny: World, client: Client) -> None:
    event = {"trip": "early", "line": 70, "delay": 8.0, "known_at": NOON - timedelta(minutes=10)}
    impossible = {**event, "trip": "late", "delay": 5000.0}
    (aside,) = client.ingest({"arrivals": [event, impossible], "trips": []})
    assert aside == {"table": "arrivals", "row": 1, "reason": "delay_between_-100_and_1000"}
    client.predict([row("next", line=70)], NOON)
    (logged,) = tiny.log.predictions("desk", first=DAY, last=DAY).filter(prediction_id="next")["features"].to_list()
    assert logged[-1] is None  # the last full hour was over before the event
    client.predict([row("later", line=70)], NOON + timedelta(hours=1))
    (logged,) = tiny.log.predictions("desk", first=DAY, last=DAY).filter(prediction_id="later")["features"].to_list()
    assert logged[-1] == 8.0


def test_labels_are_logged_under_the_day_they_became_known(tiny: World, client: Client) -> None:
    late = datetime(2013, 4, 3, 3, 59, tzinfo=UTC)  # 2 April in New York
    truths = [Truth(prediction_id="hot", value=1, known_at=late), Truth(prediction_id="cold", value=0, known_at=NOON)]
    cancelled = Truth(prediction_id="strange", value=None, known_at=late + timedelta(seconds=1))
    assert client.label([*truths, cancelled]) == 3
    labels = tiny.log.labels("desk")
    assert labels.select("prediction_id", "value", "known_at").rows() == [
        ("cold", 0, NOON),
        ("hot", 1, late),
        ("strange", None, cancelled.known_at),
    ]
    assert tiny.log.ids("desk", date(2013, 4, 2), "labels") == {"hot", "strange"}


def test_it_says_which_model_answers(client: Client) -> None:
    told = client.model()
    assert (told["name"], told["version"], told["refused"]) == ("late", "1", {})
    assert told["inputs"][0] == "city"
    assert datetime.fromisoformat(told["loaded_at"]).tzinfo is not None


def test_bentomls_own_pages_go_on(served: ServiceProcess) -> None:
    assert get(served, "/livez")[0] == get(served, "/readyz")[0] == 200
    assert "/predict" in get(served, "/docs.json")[1]
    status, metrics = get(served, "/metrics")
    assert status == 200
    assert 'bentoml_service_request_total{endpoint="/predict"' in metrics


BAD: list[tuple[str, Any, int, str]] = [
    ("no JSON", b"{rows", 400, "JSON"),
    ("no text", b"\xff\xfe", 400, "JSON"),
    ("no body", b"", 400, "rows"),
    ("a list", [], 400, "object|dictionary"),
    ("no rows", {}, 400, "rows"),
    ("rows that are no list", {"rows": {"trip": "a"}}, 400, "rows.*list"),
    ("empty", {"rows": []}, 400, "rows: is empty"),
    ("too many", {"rows": [row(str(n)) for n in range(21)]}, 400, "21 are too many; send at most 20"),
    ("unknown argument", {"rows": [ROW], "when": "now"}, 400, "when"),
    ("row is text", {"rows": ["t1"]}, 400, "rows.*0"),
    ("missing field", {"rows": [ROW, {"trip": "a", "city": "Rome"}]}, 400, "row 1: missing line"),
    ("unknown field", {"rows": [{**ROW, "cityy": "Rome"}]}, 400, "row 0: unknown cityy"),
    ("text for a number", {"rows": [row("a", line="7")]}, 400, "row 0, field 'line': '7' is not a whole number"),
    ("number for text", {"rows": [row("a", city=3)]}, 400, "row 0, field 'city': '3' is not text"),
    ("fraction", {"rows": [row("a", line=7.5)]}, 400, "row 0, field 'line'"),  # type: ignore[arg-type]
    ("truth", {"rows": [row("a", line=True)]}, 400, "row 0, field 'line'"),
    ("NaN", b'{"rows": [{"trip": "a", "city": "Rome", "line": NaN}]}', 400, "row 0, field 'line': 'nan'"),
    ("a list for text", {"rows": [{**ROW, "city": ["Rome"]}]}, 400, "row 0, field 'city'"),
    ("too large", {"rows": [row("a", line=2**63)]}, 400, "64 bits"),
    ("beyond a float", {"rows": [row("a", line=10**400)]}, 400, "64 bits"),
    ("far too large", b'{"rows": [{"trip": "a", "city": "Rome", "line": ' + b"9" * 5000 + b"}]}", 400, "64 bits|JSON"),
    ("too long", {"rows": [row("a" * 257)]}, 400, "row 0, field 'trip': has 257 characters"),
    ("empty key", {"rows": [row("")]}, 400, "row 0, field 'trip': has 0 characters"),
    ("null key", {"rows": [{**ROW, "trip": None}]}, 400, "row 0, field 'trip': is null"),
    ("half a character", b'{"rows": [{"trip": "\\ud800", "city": "Rome", "line": 1}]}', 400, "."),
    ("twice", {"rows": [ROW, ROW]}, 400, "row 1, field 'trip': the same value as row 0"),
    ("naive time", {"rows": [ROW], "asked_at": "2013-04-01T12:00:00"}, 400, "asked_at.*no time zone"),
    ("no time", {"rows": [ROW], "asked_at": "noon"}, 400, "asked_at.*ISO"),
    ("a number for time", {"rows": [ROW], "asked_at": 1364817600}, 400, "asked_at"),
    ("long ago", {"rows": [ROW], "asked_at": "1913-04-01T12:00:00Z"}, 400, "asked_at.*outside"),
    ("far ahead", {"rows": [ROW], "asked_at": "9999-12-31T23:59:59Z"}, 400, "asked_at.*outside"),
    ("beyond time", {"rows": [ROW], "asked_at": "0001-01-01T00:00:00+14:00"}, 400, "asked_at.*outside"),
    ("deep", b'{"rows": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400, "."),
    ("huge", {"rows": [row("a" * 100_000)]}, 413, "at most"),
]


@pytest.mark.parametrize(("what", "body", "status", "reason"), BAD, ids=[what for what, *_ in BAD])
def test_bad_requests_are_refused_with_a_reason(
    tiny: World, served: ServiceProcess, what: str, body: Any, status: int, reason: str
) -> None:
    before = tiny.log.predictions("desk").height
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    found, text = post(served, "/predict", content)
    assert found == status, text
    assert re.search(reason, text), text
    assert tiny.log.predictions("desk").height == before


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ({"prediction_id": "a", "value": True, "known_at": NOON.isoformat()}, "label 0, field 'value'"),
        ({"prediction_id": "a", "value": 0.5, "known_at": NOON.isoformat()}, "label 0, field 'value'"),
        ({"prediction_id": 3, "value": 1, "known_at": NOON.isoformat()}, "label 0, field 'prediction_id'"),
        ({"prediction_id": "a", "value": 1, "known_at": "2013-04-01"}, "label 0, field 'known_at'.*no time zone"),
        ({"prediction_id": "a", "value": 1}, "known_at"),
    ],
)
def test_bad_labels_are_refused_with_a_reason(served: ServiceProcess, label: dict[str, Any], reason: str) -> None:
    status, text = post(served, "/label", json.dumps({"labels": [label]}).encode())
    assert status == 400
    assert re.search(reason, text), text


def test_a_body_of_unknown_length_is_not_read(served: ServiceProcess) -> None:
    connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
    connection.request("POST", "/predict", iter([b"{}"]), encode_chunked=True)
    assert connection.getresponse().status == 411
    connection.close()


def test_the_client_tells_refusal_from_failure(client: Client) -> None:
    with pytest.raises(RequestRefused, match="row 0: missing line"):
        client.predict([{"trip": "a", "city": "Rome"}])
    with pytest.raises(RequestRefused, match="rows"):
        client.predict("no rows")  # type: ignore[arg-type]
    with pytest.raises(ServiceError, match=r"not to be reached.*ml-platform serve"):
        Client("http://127.0.0.1:9").predict([ROW])
    with pytest.raises(ServiceError, match="is not the address"):
        Client("127.0.0.1:9")


def test_many_questions_over_few_connections_keep_their_order(tiny: World, client: Client) -> None:
    names = [f"many{n}" for n in range(200)]
    answers = client.predict_many([(row(name), NOON) for name in names], concurrency=4)
    assert [list(answer.probabilities) for answer in answers] == [[name] for name in names]
    assert set(names) <= tiny.log.ids("desk", DAY)
    with pytest.raises(RequestRefused, match="row 0, field 'line'"):
        client.predict_many([(row("bad", line="x"), NOON)] * 3)


def test_a_port_in_use_is_said_with_its_cure(tiny: World, served: ServiceProcess) -> None:
    with pytest.raises(PortInUse, match=rf"port {served.port} .*--port"):
        start(tiny.profile, "desk", port=served.port)


def test_the_serving_process_never_loads_dagster(client: Client) -> None:
    """The world's children find a Dagster that raises; that they answered shows that none loads it."""
    client.predict([row("without dagster")], NOON)
    done = subprocess.run([sys.executable, "-c", "import dagster"], capture_output=True, text=True, check=False)
    assert "the serving process loads Dagster" in done.stderr


def test_a_new_champion_takes_over_without_a_failed_request(tiny: World, client: Client, tmp_path: Path) -> None:
    version = tiny.register(tiny.trained(tmp_path / "v2", upside_down=True))
    stop, seen, failures = threading.Event(), [], []

    def ask(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                answer = client.predict([row(f"swap{worker}-{number}")], NOON)
                seen.append((answer.model_version, round(next(iter(answer.probabilities.values())), 2)))
            except ServiceError as error:
                failures.append(error)

    workers = [threading.Thread(target=ask, args=(n,)) for n in range(2)]
    for worker in workers:
        worker.start()
    tiny.tracking.promote("late", version.version)
    until(lambda: client.model()["version"] == str(version.version))
    time.sleep(0.2)
    stop.set()
    for worker in workers:
        worker.join()
    assert failures == []
    assert {version for version, _ in seen} == {"1", str(version.version)}
    assert len(set(seen)) == 2  # never one version's number with another's answer
    assert seen[0][1] > 0.8
    assert seen[-1][1] < 0.2


def test_a_version_that_does_not_load_is_refused_and_the_old_one_stays(
    tiny: World, served: ServiceProcess, client: Client, tmp_path: Path
) -> None:
    before = client.model()["version"]
    broken = tiny.register_broken(tmp_path / "broken")
    tiny.tracking.promote("late", broken.version)
    until(lambda: str(broken.version) in client.model()["refused"])
    assert client.model()["version"] == before
    assert f"version {broken.version} refused, version {before} stays" in served.log.read_text()
    tiny.tracking.promote("late", int(before))


def shell_command(port: int) -> list[str]:
    return [sys.executable, "-m", "ml_platform.serving.process", "--service", "idle", "--port", str(port)]


@pytest.fixture
def shell(tiny: World) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command for people, in the foreground of a process of its own; and its port."""
    home = {"ML_PLATFORM_HOME": str(tiny.profile.home), "ML_PLATFORM_PROJECT": "tiny"}
    with subprocess.Popen(shell_command(0), env={**os.environ, **home}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "answers on http://127.0.0.1:" in said, said
        yield process, int(said.split("http://127.0.0.1:")[1].split()[0])
        process.kill()


def test_it_starts_without_a_champion_and_ends_when_it_is_told(
    tiny: World, shell: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, port = shell
    client = Client(f"http://127.0.0.1:{port}")
    with pytest.raises(ServiceError, match="503: service idle has no champion of other"):
        client.predict([ROW], NOON)
    assert client.label([Truth(prediction_id="t1", value=1, known_at=NOON)]) == 1
    tiny.tracking.promote("other", tiny.register(tiny.trained(tmp_path / "first"), "other").version)
    until(lambda: answers(client))
    process.terminate()
    assert process.wait(20) == 0
    assert not listens(port)


def test_the_service_ends_with_its_killed_parent(shell: tuple[subprocess.Popen[str], int]) -> None:
    process, port = shell
    assert listens(port)
    process.kill()
    until(lambda: not listens(port))


def answers(client: Client) -> bool:
    try:
        return bool(client.predict([ROW], NOON).probabilities)
    except ServiceError:
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_service_that_does_not_start_says_why(tiny: World) -> None:
    with pytest.raises(UnknownName, match="no service named 'disk'; did you mean desk"):
        start(tiny.profile, "disk")
    with pytest.raises(ServiceError, match=r"(?s)ended with code 1 .*ML_PLATFORM_PROFILE is 'nonsense'"):
        start(replace(tiny.profile, name="nonsense"), "desk")
    with pytest.raises(ServiceError, match=r"did not answer on http://127.0.0.1:\d+ within 0 s"):
        start(tiny.profile, "desk", ready_within=timedelta(0))


def test_a_killed_service_loses_no_answered_prediction(tiny: World, served: ServiceProcess, client: Client) -> None:
    """The last one: it kills the service that the tests above share."""
    answered: list[str] = []

    def ask() -> None:
        while True:
            try:
                client.predict([row(f"kill{len(answered)}")], NOON)
            except ServiceError:
                return
            answered.append(f"kill{len(answered)}")

    asker = threading.Thread(target=ask)
    asker.start()
    until(lambda: len(answered) > 100)
    served.child.kill()
    asker.join()
    assert set(answered) <= tiny.log.ids("desk", DAY)
