"""Questions of one turn of the event loop are answered together, and what is wrong with one touches no other."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.serving.bodies import PredictRequest
from ml_platform.serving.champion import Serving
from ml_platform.serving.desk import Answered, Desk, Question
from ml_platform.serving.meters import BUCKETS, Meters
from ml_platform.serving.together import Outcome, Turns, answer_together
from ml_platform.serving.traffic import Split
from ml_platform.spec import PlatformError, RequestRefused, ServiceError, StateError
from ml_platform_tests.serving_world import NOON, ROW, World, standard

WALL = datetime(2014, 1, 1, tzinfo=UTC)


def test_those_of_one_turn_share_one_answer_and_nobody_waits_for_company() -> None:
    turns: list[Sequence[int]] = []

    async def answer(asked: Sequence[int]) -> list[int]:
        turns.append(asked)
        await asyncio.sleep(0.01)
        return [10 * each for each in asked]

    async def ask() -> None:
        gathered = Turns(answer)
        first = [asyncio.create_task(gathered.ask(n)) for n in range(5)]
        await asyncio.sleep(0.005)  # their answer is under way
        later = [asyncio.create_task(gathered.ask(n)) for n in (7, 8)]
        assert await asyncio.gather(*first, *later) == [0, 10, 20, 30, 40, 70, 80]
        assert await gathered.ask(9) == 90

    asyncio.run(ask())
    assert turns == [[0, 1, 2, 3, 4], [7, 8], [9]]


def test_an_error_reaches_all_of_a_turn_and_the_next_turn_goes_on() -> None:
    async def answer(asked: Sequence[int]) -> list[int]:
        if 2 in asked:
            raise ValueError("two")
        return list(asked)

    async def ask() -> None:
        gathered = Turns(answer)
        found = await asyncio.gather(*(gathered.ask(n) for n in (1, 2, 3)), return_exceptions=True)
        assert [str(error) for error in found] == ["two"] * 3
        assert await gathered.ask(4) == 4

    asyncio.run(ask())


def test_a_first_one_that_is_cancelled_does_not_leave_the_others_waiting() -> None:
    async def answer(asked: Sequence[int]) -> list[int]:
        await asyncio.sleep(10)
        return list(asked)

    async def ask() -> None:
        gathered = Turns(answer)
        tasks = [asyncio.create_task(gathered.ask(n)) for n in range(3)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert isinstance(found[0], asyncio.CancelledError)
        assert all(isinstance(each, ServiceError) for each in found[1:])

    asyncio.run(ask())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("together"))


@pytest.fixture
def desk(tiny: World) -> Iterator[Desk]:
    desk = Desk.open(tiny.profile, "desk")
    yield desk
    desk.log.close()


def question(desk: Desk, *names: str, asked_at: datetime | None = NOON, **other: str | int | None) -> Question:
    return Question(desk.champion(), [{**ROW, "trip": name, **other} for name in names], asked_at)


def together(desk: Desk, *questions: Question) -> list[Outcome]:
    return asyncio.run(answer_together(desk, None, questions, WALL))


def test_answers_and_records_are_those_of_one_by_one(tiny: World, desk: Desk) -> None:
    questions = [
        question(desk, "a", "b", city="Oslo"),
        question(desk, "c", asked_at=NOON + timedelta(days=1)),
        question(desk, "d", "e", "f", city=None, line=None),
        question(desk, "g", asked_at=None),
    ]
    found = together(desk, *questions)
    alone = [together(desk, each)[0] for each in questions]
    assert found == alone
    assert [each.ids for each in found if isinstance(each, Answered)] == [["a", "b"], ["c"], ["d", "e", "f"], ["g"]]
    log = {row["prediction_id"]: row for row in tiny.log.predictions("desk").iter_rows(named=True)}
    assert {name: log[name]["as_of"] for name in "acg"} == {
        "a": NOON.replace(minute=0),
        "c": NOON.replace(minute=0) + timedelta(days=1),
        "g": WALL,
    }
    assert {(row["model_version"], row["answered_at"]) for row in log.values()} == {("1", WALL)}


def test_each_row_names_the_version_that_answered_it(tiny: World, desk: Desk, tmp_path: Path) -> None:
    """Whichever way it goes: a canary's rows name it, the others are the champion's; the log says the same."""
    other = desk.watch.load(tiny.register(tiny.trained(tmp_path / "v", upside_down=True)))
    desk.watch.serving = Serving(
        champion=desk.champion(), canary=other, split=Split(by=("trip",), share=0.5, salt="here")
    )
    names = [f"row {n}" for n in range(12)]
    (found,) = together(desk, question(desk, *names))
    assert isinstance(found, Answered)
    rows: list[dict[str, str | int | None]] = [{**ROW, "trip": f"slow {name}"} for name in names]
    slow = desk.predict(PredictRequest(rows=rows, asked_at=NOON.isoformat()), WALL)
    told = {row["prediction_id"]: (row.get("model_version", "1"), row["probability"]) for row in found.predictions()}
    sent = json.loads(slow.model_dump_json(exclude_unset=True))["predictions"]
    told |= {row["prediction_id"]: (row.get("model_version", "1"), row["probability"]) for row in sent}
    assert (found.model_version, slow.model_version) == ("1", "1")
    logged = tiny.log.predictions("desk").filter(pl.col("prediction_id").is_in([*told]))
    columns = logged.select("prediction_id", "model_version", "probability").rows()
    assert {name: (version, probability) for name, version, probability in columns} == told
    assert {version for version, _ in told.values()} == {"1", other.version}
    assert all((probability > 0.5) == (version == "1") for version, probability in told.values())  # of Rome


def test_a_question_about_what_is_gone_does_not_spoil_the_others(tiny: World, desk: Desk) -> None:
    desk.live.keep_from(NOON - timedelta(days=1))
    early = question(desk, "early", asked_at=NOON - timedelta(days=2))
    before, wrong, after = together(desk, question(desk, "before"), early, question(desk, "after"))
    assert isinstance(wrong, RequestRefused)
    assert "live windows are kept as of" in str(wrong)
    assert [each.ids for each in (before, after) if isinstance(each, Answered)] == [["before"], ["after"]]
    assert {"before", "after"} <= tiny.log.ids("desk", NOON.date())
    assert "early" not in tiny.log.ids("desk", NOON.date() - timedelta(days=2))


def test_what_the_store_cannot_read_fails_alone(tiny: World, desk: Desk) -> None:
    tiny.publish("city_load", [{"city": "Broken", "load": 0.5, "newest": 1}])
    view, text = tiny.project.views["city_load"], b"\x1a\x01x"  # a string, in Feast's bytes
    where = f"UPDATE {tiny.online.table(view.name)} SET value = ? WHERE instr(entity_key, ?)"
    with tiny.online._transaction("city_load") as db:
        changed = db.execute(where, (text, b"Broken")).rowcount
    assert changed == 2
    good, broken = together(desk, question(desk, "good"), question(desk, "bad", city="Broken"))
    assert isinstance(good, Answered)
    assert isinstance(broken, ServiceError)
    assert "cannot be read" in str(broken)


def test_a_log_that_cannot_be_written_answers_nobody(desk: Desk) -> None:
    desk.log._broken = OSError("no space")
    found = together(desk, question(desk, "x"), question(desk, "y"))
    assert all(isinstance(each, StateError) for each in found)
    assert len({id(each) for each in found if isinstance(each, PlatformError)}) == 1  # it was tried once


def test_the_meters_put_seconds_where_prometheus_would() -> None:
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Histogram("theirs", "d", buckets=BUCKETS, registry=registry)
    seconds = [0.0, 0.0004, 0.0005, 0.00051, 0.03, 0.1, 9.0, 10.0, 11.0]

    async def count() -> Meters:
        meters = Meters("desk", registry)
        for each in seconds:
            meters.count("/predict", 200 if each < 10 else 503, each)
            theirs.observe(each)
        meters.flush()
        return meters

    meters = asyncio.run(count())

    def samples(histogram: prometheus_client.Histogram) -> list[tuple[str, str, float]]:
        all_of_it = [sample for metric in histogram.collect() for sample in metric.samples]
        found = [(each.name.split("_")[-1], each.labels.get("le", ""), each.value) for each in all_of_it]
        return [each for each in found if each[0] != "created"]

    assert samples(meters._seconds) == samples(theirs)
    counted = {s.labels["status"]: s.value for m in meters._requests.collect() for s in m.samples if "total" in s.name}
    assert counted == {"200": 7.0, "503": 2.0}
