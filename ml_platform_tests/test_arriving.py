"""A body is whole whenever its parts come, and nobody waits for it longer than he is willing to."""

import asyncio
import random

import pytest
from starlette.types import Message

from ml_platform.serving.arriving import whole

GONE: Message = {"type": "http.disconnect"}


def part(body: bytes, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Caller:
    """Sends messages, each after a pause (seconds; 0 is at once, without giving the event loop a turn)."""

    def __init__(self, *messages: tuple[float, Message]) -> None:
        self.left, self.closed = [*messages], False

    async def receive(self) -> Message:
        pause, message = self.left.pop(0)
        try:
            if pause:
                event = asyncio.Event()
                asyncio.get_running_loop().call_later(pause, event.set)
                await event.wait()
                await asyncio.sleep(0)  # waits more than once
        except asyncio.CancelledError:
            self.closed = True
            raise
        except GeneratorExit:
            self.closed = True
            raise
        return message


def test_whatever_way_it_comes_it_is_the_same() -> None:
    chance = random.Random(1)

    async def ask() -> None:
        for _ in range(200):
            body = chance.randbytes(chance.randint(0, 30))
            cuts = sorted(chance.choices(range(len(body) + 1), k=chance.randint(0, 4)))
            parts = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
            messages = [part(each, place < len(parts) - 1) for place, each in enumerate(parts)]
            caller = Caller(*((chance.choice([0, 0, 0.001]), message) for message in messages))
            found = await whole(caller.receive, 5)
            assert (found["body"], found.get("more_body")) == (body, False)
            assert caller.left == []

    asyncio.run(ask())


@pytest.mark.parametrize("pause", [0, 0.001])
@pytest.mark.parametrize("before", [0, 2])
def test_that_the_caller_went_away_is_told(pause: float, before: int) -> None:
    caller = Caller(*[(pause, part(b"a", True))] * before, (pause, GONE))
    assert asyncio.run(whole(caller.receive, 5)) == GONE


@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_does_not_come_is_not_waited_for(before: int) -> None:
    caller = Caller(*[(0, part(b"a", True))] * before, (60, part(b"b", False)))

    async def ask() -> None:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await whole(caller.receive, 0.05)
        assert asyncio.get_running_loop().time() - began < 5

    asyncio.run(ask())
    assert caller.closed


def test_who_waits_for_it_may_be_cancelled() -> None:
    caller = Caller((60, part(b"b", False)))

    async def ask() -> None:
        task = asyncio.create_task(whole(caller.receive, 60))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    assert caller.closed
