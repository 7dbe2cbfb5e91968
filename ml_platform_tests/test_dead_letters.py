"""Events that could not be applied, on a real Redis stream: listed with their reasons, and sent again once mended."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import redis
from click.testing import CliRunner, Result

from ml_platform.cli import main
from ml_platform.serving.consumer import Consumer
from ml_platform.serving.events import Ingestor
from ml_platform.spec import expectations as gxe
from ml_platform.stores.event_stream import DeadLetter, EventStream
from ml_platform_tests.redis_server import Server
from ml_platform_tests.stream_world import NOW, as_json, consumer, drained, empty_place, many_frames
from ml_platform_tests.test_live_redis import PRODUCTION, assert_equals_oracle

pytestmark = pytest.mark.service("redis")


@pytest.fixture
def place() -> Iterator[tuple[str, str]]:
    with empty_place() as found:
        yield found


def mended(one: Consumer) -> Consumer:
    """The same consumer after the rule was widened that set rows aside."""
    was = one.ingestor
    trips = replace(
        was.project.tables["trips"],
        rules=(gxe.ExpectColumnValuesToBeBetween(column="minutes", min_value=-60, max_value=9_000),),
    )
    project = replace(was.project, tables={**was.project.tables, "trips": trips})
    return Consumer(
        Ingestor(project, was.live, was.online, was.lake), one.stream, lambda: NOW, name="mended", batch=one.batch
    )


def test_what_was_set_aside_counts_once_its_reason_is_mended(place: tuple[str, str], tmp_path: Path) -> None:
    url, name = place
    stream = EventStream(url, name)
    frames = many_frames(60)
    trips = frames["trips"].with_columns(
        minutes=pl.when(pl.col("trip") % 5 == 0).then(5_000).otherwise("minutes").cast(pl.Int64)
    )
    stream.send("trips", as_json(trips))
    stream.send("trips", [b"{"])
    first = drained(consumer(url, name, tmp_path))
    wrong = trips.filter(pl.col("minutes") == 5_000).height
    assert first.counts.aside == wrong + 1 > 5
    frames = {"trips": trips, "ends": frames["ends"].clear(), "losses": frames["losses"].clear()}

    found = list(stream.dead_letters())
    assert found[0].row == b"{"  # the newest first
    assert {letter.reason for letter in found[1:]} == {"trips: minutes_between_-60_and_1000"}
    assert stream.send_again(found) == wrong + 1
    assert stream.send_again(found) == 0  # another operator was there
    assert (stream.waiting(), list(stream.dead_letters())) == (wrong + 1, [])

    again = drained(consumer(url, name, tmp_path))  # nothing is mended: they come back, and nothing else changes
    assert (again.counts.applied, again.counts.aside) == (0, wrong + 1)
    stream.send_again(stream.dead_letters())
    last = drained(mended(again))
    assert (last.counts.applied, last.counts.aside) == (wrong, 1)
    assert [letter.row for letter in stream.dead_letters()] == [b"{"]
    assert_equals_oracle(url, name, frames)


def test_thousands_are_listed_in_order_and_only_the_chosen_go(place: tuple[str, str]) -> None:
    stream = EventStream(*place)
    with redis.Redis.from_url(place[0]) as client, client.pipeline(transaction=False) as many:
        for n in range(2_500):
            many.xadd(stream.dead, {"table": f"t{n % 2}", "row": b"\xff%d" % n, "reason": "r", "id": "0-0"})
        many.execute()
        seen: list[DeadLetter] = []
        for letter in stream.dead_letters():
            if not seen:  # what comes meanwhile is left out
                client.xadd(stream.dead, {"table": "t0", "row": "late", "reason": "r", "id": "0-0"})
            seen.append(letter)
        assert [letter.row for letter in seen] == [b"\xff%d" % n for n in reversed(range(2_500))]
        assert stream.send_again(letter for letter in seen if letter.table == "t1") == 1_250
        moved = client.xrange(stream.stream)
        assert [held for _, held in moved] == [
            {b"table": b"t1", b"row": b"\xff%d" % n} for n in reversed(range(2_500)) if n % 2
        ]
        assert [letter.table for letter in stream.dead_letters()] == ["t0"] * 1_251


def test_the_command_lists_and_sends_again(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    places = {
        "ML_PLATFORM_HOME": str(home),
        "ML_PLATFORM_PROJECT": "ml_platform_tests.trips",
        "ML_PLATFORM_LAKE": str(home / "lake"),
        "ML_PLATFORM_MLFLOW_URI": "sqlite://",
        "ML_PLATFORM_MLFLOW_ARTIFACTS": str(home),
        "ML_PLATFORM_REDIS_URL": server.url,
    }
    for name, value in (PRODUCTION | places).items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["dead-letters", *words])

    none = run()
    assert (none.exit_code, none.output) == (0, "0 dead letters in events:trips:dead\n")
    rows = [json.dumps({"trip": f"t{n}", "line": None}).encode() for n in range(3)]
    with redis.Redis(port=server.port) as client:
        for row in rows:
            client.xadd("events:trips:dead", {"table": "ended", "row": row, "reason": "ended: line_not_null", "id": 0})
        long = {"table": "trips", "row": b"x" * 300, "reason": "is no JSON", "id": 0}
        (number,) = [client.xadd("events:trips:dead", long).decode()]
        listed = run("--most", "1")
        assert listed.output.splitlines() == [
            f"{number}  trips  is no JSON",
            f"    {'x' * 160}...",
            "3 x ended: ended: line_not_null",
            "1 x trips: is no JSON",
            "4 dead letters in events:trips:dead",
        ]
        assert client.xlen("events:trips") == 0
        sent = run("--table", "ended", "--reason", "not_null", "--most", "0", "--send-again")
        assert sent.output.splitlines() == [
            "3 x ended: ended: line_not_null",
            "3 dead letters in events:trips:dead",
            "3 sent again; `ml-platform consume` applies them",
        ]
        assert {held[b"row"] for _, held in client.xrange("events:trips")} == set(rows)
        assert client.xlen("events:trips:dead") == 1
    monkeypatch.setenv("ML_PLATFORM_PROFILE", "embedded")
    refused = run()
    assert refused.exit_code == 1
    assert "has no stream of events" in refused.output
