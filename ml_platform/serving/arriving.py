"""The body of a request as it arrives, with a limit on the time that costs nothing where all of it is there already."""

import asyncio
from collections.abc import Generator
from typing import Any

from starlette.types import Message, Receive


async def whole(receive: Receive, seconds: float) -> Message:
    """The body in one message, or that the caller went away.

    Raises:
        TimeoutError: it did not arrive within so many seconds.
    """
    first = receive()
    try:
        waits_for = first.send(None)  # type: ignore[attr-defined]  # it is a coroutine wherever there is a server
    except StopIteration as done:
        message: Message = done.value
        if not message.get("more_body"):
            return message
        async with asyncio.timeout(seconds):
            return await _rest(message, receive)
    async with asyncio.timeout(seconds):
        return await _rest(await _Begun(first, waits_for), receive)


async def _rest(message: Message, receive: Receive) -> Message:
    parts = [message.get("body", b"")]
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    if message["type"] == "http.disconnect":
        return message
    return {"type": "http.request", "body": b"".join(parts), "more_body": False}


class _Begun:
    """A coroutine that runs already and waits for something; awaited, it goes on."""

    def __init__(self, coroutine: Any, waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        try:
            yield self._waits_for
            message: Message = yield from self._coroutine.__await__()
            return message
        finally:
            self._coroutine.close()  # of one that was cancelled, what it waits for must not wake it
