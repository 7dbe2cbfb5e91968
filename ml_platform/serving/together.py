"""Questions that are ready at the same moment share their work: one exchange with Redis, one scoring, one write.

Nobody waits for company: whoever is first in a turn of the event loop lets the others of that turn come in, and answers
for all. Who comes while others are being answered is company for whoever comes next, so the busier it is the more of
them share.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ml_platform.serving.desk import Answered, Desk, Question
from ml_platform.spec import (
    MissingHistory,
    PlatformError,
    RequestRefused,
    ServiceError,
    StateError,
    StoreUnavailable,
    WindowsLost,
)

if TYPE_CHECKING:  # a serving process of the embedded profile needs no Redis client
    from ml_platform.stores.redis_line import RedisLine

Outcome = Answered | PlatformError
Asked = TypeVar("Asked")
Told = TypeVar("Told")


class Turns(Generic[Asked, Told]):
    """Gathers what is asked within one turn of the event loop, and has it answered together."""

    def __init__(self, answer: Callable[[Sequence[Asked]], Awaitable[Sequence[Told]]]) -> None:
        """``answer``: tells something to each that asks, in order."""
        self._answer = answer
        self._open: list[tuple[Asked, asyncio.Future[Told]]] | None = None
        self._under_way: asyncio.Future[None] | None = None

    async def ask(self, asked: Asked) -> Told:
        """What is told to this one.

        Raises:
            BaseException: whatever ``answer`` raises, in all that asked together.
        """
        turn = self._open
        if turn is not None:
            future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
            turn.append((asked, future))
            return await future
        turn = self._open = []
        try:
            await asyncio.sleep(0)  # those whose requests came with ours run now
            while self._under_way is not None:
                await self._under_way
            self._open = None
            told = await self._together([asked, *[other for other, _ in turn]])
        except BaseException as error:
            self._open = None
            for _, future in turn:
                if not future.done():
                    future.set_exception(_same(error))
            raise
        for (_, future), each in zip(turn, told[1:], strict=True):
            if not future.done():  # who asked may have been cancelled
                future.set_result(each)
        return told[0]

    async def _together(self, asked: Sequence[Asked]) -> Sequence[Told]:
        done = self._under_way = asyncio.get_running_loop().create_future()
        try:
            return await self._answer(asked)
        finally:
            self._under_way = None
            done.set_result(None)


def _same(error: BaseException) -> BaseException:
    """For the others; that the first was cancelled is no reason to cancel them."""
    if isinstance(error, asyncio.CancelledError):
        return ServiceError("the request that was answered together with this one was given up; ask again")
    return error


async def answer_together(
    desk: Desk, line: "RedisLine | None", questions: Sequence[Question], now: datetime
) -> list[Outcome]:
    """An answer, or the reason why there is none, for each question; all are logged before this returns.

    What is wrong with one does not touch the others: they are answered one by one then.
    """
    try:
        return list(await _answered(desk, line, questions, now))
    except (StoreUnavailable, StateError, WindowsLost) as error:  # one by one would find the same
        return [error] * len(questions)
    except (PlatformError, ValueError) as error:
        if len(questions) == 1:
            return [_said(error)]
    return [(await answer_together(desk, line, [question], now))[0] for question in questions]


def _said(error: PlatformError | ValueError) -> PlatformError:
    if isinstance(error, MissingHistory):
        return RequestRefused(str(error))
    if isinstance(error, PlatformError):
        return error
    return ServiceError(f"a feature of these rows cannot be read ({error}); publish its view again")


async def _answered(
    desk: Desk, line: "RedisLine | None", questions: Sequence[Question], now: datetime
) -> list[Answered]:
    groups = desk.groups(questions, now)
    readings = [group.plan.ask(group.rows, group.asked_at, group.as_of) for group in groups]
    exchanges = [exchange for reading in readings for exchange in reading.exchanges]
    answers: Iterator[list[Any]] = iter(())
    if exchanges:
        assert line is not None, "a store that is a server has a line to it"
        count = sum(exchange.count for exchange in exchanges)
        replies = await line.ask(b"".join([exchange.packet for exchange in exchanges]), count)
        answers = _apart(replies, [exchange.count for exchange in exchanges])
    vectors = []
    for group, reading in zip(groups, readings, strict=True):
        mine = iter([*islice(answers, len(reading.exchanges))])  # what one leaves is not the next one's
        vectors.append(desk.read(group, partial(group.plan.found, reading, mine)))
    return desk.complete(questions, groups, vectors, now)


def _apart(replies: list[Any], counts: Sequence[int]) -> Iterator[list[Any]]:
    if len(counts) == 1:
        yield replies
        return
    start = 0
    for count in counts:
        yield replies[start : start + count]
        start += count
