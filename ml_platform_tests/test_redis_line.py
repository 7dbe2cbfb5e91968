"""The event loop's connection to Redis: the same answers as the ordinary one, and nobody waits while Redis hangs."""

import asyncio
import random
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.spec import Entity, FeatureView, Latest, StoreUnavailable
from ml_platform.stores.online_plan import Plan
from ml_platform.stores.online_redis import RedisOnlineStore
from ml_platform.stores.redis_line import RedisLine
from ml_platform.stores.redis_wire import RedisWire, packed
from ml_platform_tests.redis_server import Server

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ECHO = packed("ECHO", b"here")


def view(name: str, entity: Entity) -> FeatureView:
    features = tuple(Latest(f"{name}_{n}", "float64" if n < 3 else "int64") for n in range(5))
    return FeatureView(
        name=name, source="s", entities=(entity,), features=features, description="d", online_for=timedelta(days=1)
    )


def filled(url: str) -> Plan:
    """Two views, each of its own entity; some entities unknown, some values null, some too old."""
    chance = random.Random(1)
    store = RedisOnlineStore(url, "lines")
    views = [view("spending", Entity(name="user", dtype="int64")), view("sales", Entity(name="shop", dtype="int64"))]
    for each in views:
        columns: dict[str, list[Any]] = {each.entity_names[0]: list(range(50))}
        for name, kind in each.schema().items():
            draw = chance.random if kind == "float64" else lambda: chance.randrange(9)
            columns[name] = [None if chance.random() < 0.1 else draw() for _ in range(50)]
        moments = [NOW - timedelta(hours=chance.randrange(24)) for _ in range(50)]
        store.publish(
            each, pl.DataFrame(columns).with_columns(as_of=pl.Series(moments, dtype=pl.Datetime("us", "UTC"))), NOW
        )
    return store.plan([(each, tuple(each.schema())) for each in views], fill=True)


def line_to(server: Server, patience: float = 2.0) -> RedisLine:
    return RedisLine(RedisWire(server.url, timedelta(seconds=patience)))


async def asked(plan: Plan, line: RedisLine, rows: list[dict[str, Any]], at: datetime) -> tuple[Any, Any]:
    question = plan.ask(rows)
    assert plan.pack is not None
    exchange = plan.pack(question.keys)
    found = plan.found(question, exchange.take(await line.ask(exchange.packet, exchange.count)), at)
    return found.values, found.statuses


def test_many_questions_at_once_get_the_answers_of_the_ordinary_store(server: Server) -> None:
    plan, chance = filled(server.url), random.Random(2)
    questions = [
        (
            [
                {"user": chance.choice([None, *range(60)]), "shop": chance.randrange(60)}
                for _ in range(chance.randint(1, 30))
            ],
            NOW + timedelta(hours=chance.randrange(30)),
        )
        for _ in range(200)
    ]

    async def ask() -> list[Any]:
        line = line_to(server)
        return await asyncio.gather(*(asked(plan, line, rows, at) for rows, at in questions))

    for (rows, at), found in zip(questions, asyncio.run(ask()), strict=True):
        expected = plan.read(rows, at)
        assert found == (expected.values, expected.statuses)


def test_while_redis_hangs_the_loop_goes_on_and_the_question_fails_in_time(server: Server) -> None:
    assert server.process is not None
    process = server.process

    async def ask() -> tuple[float, int]:
        line = line_to(server, patience=0.4)
        assert await line.ask(ECHO, 1) == [b"here"]
        process.send_signal(signal.SIGSTOP)
        ticks, began = 0, time.monotonic()
        questions = [asyncio.create_task(line.ask(ECHO, 1)) for _ in range(5)]
        while not all(question.done() for question in questions):
            await asyncio.sleep(0.01)
            ticks += 1
        took = time.monotonic() - began
        for question in questions:
            assert isinstance(question.exception(), StoreUnavailable)
            assert "timed out" in str(question.exception())
        process.send_signal(signal.SIGCONT)
        assert await line.ask(ECHO, 1) == [b"here"]
        return took, ticks

    took, ticks = asyncio.run(ask())
    assert 0.35 < took < 3
    assert ticks > 8  # the loop had its turns meanwhile


def test_it_connects_anew_when_redis_was_started_again(server: Server) -> None:
    async def ask() -> None:
        line = line_to(server)
        assert await line.ask(ECHO * 3, 3) == [b"here"] * 3
        server.kill()
        with pytest.raises(StoreUnavailable, match=r"Redis at 127\.0\.0\.1:\d+, database 0 cannot be reached"):
            await line.ask(ECHO, 1)
        server.start()
        answers = await asyncio.gather(*(line.ask(ECHO, 1) for _ in range(20)))
        assert answers == [[b"here"]] * 20

    asyncio.run(ask())


def test_a_refusal_fails_its_own_question_alone(server: Server) -> None:
    async def ask() -> None:
        line = line_to(server)
        await line.ask(packed("SET", "text", "a"), 1)
        found = await asyncio.gather(
            line.ask(ECHO, 1), line.ask(packed("HGETALL", "text"), 1), line.ask(ECHO, 1), return_exceptions=True
        )
        assert found[::2] == [[b"here"], [b"here"]]
        assert isinstance(found[1], StoreUnavailable)
        assert "WRONGTYPE" in str(found[1])

    asyncio.run(ask())


def test_a_cancelled_question_does_not_shift_the_answers_of_others(server: Server) -> None:
    async def ask() -> None:
        line = line_to(server)
        await line.ask(ECHO, 1)
        lost = asyncio.create_task(line.ask(packed("ECHO", b"lost"), 1))
        await asyncio.sleep(0)
        lost.cancel()
        assert await line.ask(packed("ECHO", b"kept"), 1) == [b"kept"]

    asyncio.run(ask())


def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    own = Server(tmp_path, "--requirepass", "secret")
    own.start()
    try:
        wrong = RedisWire(own.url.replace("redis://", "redis://:wrong@"), timedelta(seconds=2))
        with pytest.raises(StoreUnavailable, match=r"refuses: (WRONGPASS|NOAUTH)"):
            asyncio.run(RedisLine(wrong).ask(ECHO, 1))
        right = RedisWire(own.url.replace("redis://", "redis://:secret@").replace("/0", "/3"), timedelta(seconds=2))
        assert asyncio.run(RedisLine(right).ask(ECHO, 1)) == [b"here"]
    finally:
        own.kill()
