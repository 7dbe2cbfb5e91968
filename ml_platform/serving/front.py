"""The service's ASGI application: predictions are answered here, everything else by the BentoML application behind it.

BentoML's own way of a request costs many times what a prediction does. What is not plainly right here (another content
type, a body that breaks a rule, no champion) goes its way as ever, so every refusal is said there.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_platform.serving.access import Access, Refusal, without_keys
from ml_platform.serving.arriving import whole
from ml_platform.serving.desk import Answered, Desk, Question
from ml_platform.serving.meters import Meters
from ml_platform.serving.quick_body import BodyReader
from ml_platform.serving.refusals import status_of
from ml_platform.serving.together import Outcome, Turns, answer_together
from ml_platform.spec import NoChampion, PlatformError, RequestRefused, TooLate

if TYPE_CHECKING:  # a serving process of the embedded profile needs no Redis client
    from ml_platform.stores.redis_line import RedisLine

logger = logging.getLogger(__name__)
PREDICT = "/predict"
ENDPOINTS = frozenset([PREDICT, "/label", "/ingest", "/model"])
_JSON = (b"application/json", b"")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_NO_MATTER = 499  # nginx's number for a caller who went away
_RETRY_AFTER = (b"retry-after", b"1")
_BEARER = (b"www-authenticate", b"Bearer")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Head:
    """What counts of a request's headers; ``length`` None: not said, or no number."""

    request_id: bytes
    length: int | None
    plain: bool


@dataclass(slots=True)
class _Waiting:
    question: Question
    since: float


class Front:
    """Stands before the BentoML application of one service."""

    def __init__(
        self,
        app: ASGIApp,
        opened: Callable[[], Desk | None],
        meters: Meters,
        largest: int,
        now: Callable[[], datetime],
        access: Access,
    ) -> None:
        """``opened``: the desk, once the server has started; ``largest``: bytes of a body."""
        self.app, self.largest, self.access = app, largest, access
        self._opened, self._now, self.meters = opened, now, meters
        self._turns: Turns[_Waiting, Outcome] = Turns(self._answer)
        self._reader: BodyReader | None = None
        self._line: RedisLine | None = None
        self._served: Desk | None = None
        self._prefix, self._number = os.urandom(6).hex().encode(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await _unasked(self.app, scope, receive, send)
        began, path = perf_counter(), scope["path"]
        refusal = self.access.refusal(path, scope["headers"], scope.get("client"), began)
        if refusal is not None:
            return await self._refused(refusal, scope, began, send)
        desk = self._opened() if scope["method"] == "POST" and path in ENDPOINTS else None
        if desk is None:
            return await self.app({**scope, "headers": without_keys(scope["headers"])}, receive, send)
        head = self._head(scope["headers"])
        meters, status = self.meters, 500
        meters.in_flight += 1
        try:
            if meters.in_flight > desk.service.most_waiting:
                status = await self._overloaded(desk, head, scope, send)
            elif head.length is None or head.length > self.largest:  # it is refused before any of it is read
                status = await self._behind(head, scope, receive, send)
            else:
                status = await self._read(desk, head, began, scope, receive, send)
        finally:
            meters.in_flight -= 1
            meters.count(scope["path"], status, perf_counter() - began)
        return None

    def _head(self, headers: Sequence[tuple[bytes, bytes]]) -> _Head:
        request_id, length, plain = b"", None, True
        for name, value in headers:
            if name == b"content-length":
                length = int(value) if value.isdigit() else None
            elif name == b"content-type":
                plain = value.partition(b";")[0].strip() in _JSON
            elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                request_id = value
        if not request_id:
            self._number += 1
            request_id = b"%b-%x" % (self._prefix, self._number)
        return _Head(request_id, length, plain)

    async def _read(self, desk: Desk, head: _Head, began: float, scope: Scope, receive: Receive, send: Send) -> int:
        left = desk.service.answer_within.total_seconds()
        try:
            message = await whole(receive, left)
        except TimeoutError:
            reason = f"the body of {head.length} bytes did not arrive within {left:g} s; send it again"
            return await self._fail(408, reason, head, scope, send)
        if message["type"] == "http.disconnect":
            return _NO_MATTER
        body = message.get("body", b"")
        if scope["path"] == PREDICT and head.plain:
            return await self._predict(desk, head, began, body, scope, receive, send)
        return await self._behind(head, scope, _again(body, receive), send)

    async def _predict(
        self, desk: Desk, head: _Head, began: float, body: bytes, scope: Scope, receive: Receive, send: Send
    ) -> int:
        question = self._question(desk, body)
        if question is None:
            return await self._behind(head, scope, _again(body, receive), send)
        meters = self.meters
        meters.waiting += 1
        try:
            outcome = await self._turns.ask(_Waiting(question, began))
        finally:
            meters.waiting -= 1
        if isinstance(outcome, PlatformError):
            return await self._fail(status_of(outcome), str(outcome), head, scope, send)
        await _send(send, 200, _body(outcome), head)
        return 200

    def _question(self, desk: Desk, body: bytes) -> Question | None:
        try:
            champion = desk.champion()
            rules = desk.rules_of(champion)
            reader = self._reader
            if reader is None or (reader.rules is not rules and reader.rules != rules):
                reader = self._reader = BodyReader(rules)
            found = reader.read(body)
            return None if found is None else desk.question(champion, *found, self._now())
        except (NoChampion, RequestRefused):
            return None

    async def _answer(self, turn: Sequence[_Waiting]) -> list[Outcome]:
        desk = self._opened()
        assert desk is not None, "it was there when they were asked"
        if desk is not self._served:
            self._served, self._line = desk, desk.online.line()
        self.meters.turns += 1
        self.meters.questions += len(turn)
        within = desk.service.answer_within.total_seconds()
        oldest = perf_counter() - within
        told: list[Outcome] = [_too_late(within)] * len(turn)
        in_time = [place for place, waiting in enumerate(turn) if waiting.since > oldest]
        questions = [turn[place].question for place in in_time]
        outcomes = await answer_together(desk, self._line, questions, self._now()) if questions else []
        for place, outcome in zip(in_time, outcomes, strict=True):
            told[place] = outcome
        return told

    async def _refused(self, refusal: Refusal, scope: Scope, began: float, send: Send) -> None:
        head, path = self._head(scope["headers"]), scope["path"]
        _log(refusal.status, refusal.logged, head, path)
        body = _encode({"error": refusal.reason})
        await _send(send, refusal.status, body, head, *((_BEARER,) if refusal.status == 401 else ()))
        self.meters.count(path if path in ENDPOINTS else "other", refusal.status, perf_counter() - began)

    async def _overloaded(self, desk: Desk, head: _Head, scope: Scope, send: Send) -> int:
        most = desk.service.most_waiting
        reason = f"{most} requests wait already, which is what service {desk.service.name} lets wait; ask again later"
        return await self._fail(503, reason, head, scope, send, _RETRY_AFTER)

    async def _fail(
        self, status: int, reason: str, head: _Head, scope: Scope, send: Send, *more: tuple[bytes, bytes]
    ) -> int:
        _log(status, reason, head, scope["path"])
        await _send(send, status, _encode({"error": reason}), head, *more)
        return status

    async def _behind(self, head: _Head, scope: Scope, receive: Receive, send: Send) -> int:
        """As BentoML's application answers it, with our id."""
        status = 500
        told = bytearray()

        async def sends(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", head.request_id)]}
            elif status >= 400:
                told.extend(message.get("body", b""))
                if not message.get("more_body"):
                    _log(status, _reason(told), head, scope["path"])
            await send(message)

        await self.app({**scope, "headers": without_keys(scope["headers"])}, receive, sends)
        return status


async def _unasked(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Start and end of the server; there is nothing to say over a websocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await app(scope, receive, send)


def _reason(body: bytes | bytearray) -> str:
    """The sentence in an error's body."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, TypeError, KeyError):
        return body.decode(errors="replace")


def _too_late(within: float) -> TooLate:
    return TooLate(f"the request's turn did not come within {within:g} s; nothing was logged: ask again later")


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, to be read once more."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receives() -> Message:
        return left.pop() if left else await receive()

    return receives


def _body(answered: Answered) -> bytes:
    return _encode({"predictions": answered.predictions(), "model_version": answered.model_version})


async def _send(send: Send, status: int, body: bytes, head: _Head, *more: tuple[bytes, bytes]) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", head.request_id),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _log(status: int, reason: str, head: _Head, endpoint: str) -> None:
    """One line of JSON; of refusals at a lower level, as they are the caller's."""
    line: dict[str, Any] = {
        "event": "request failed",
        "request_id": head.request_id.decode(),
        "endpoint": endpoint,
        "status": status,
        "reason": reason[:1000],
    }
    logger.log(logging.WARNING if status >= 500 else logging.INFO, json.dumps(line))
