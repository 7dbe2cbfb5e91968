"""The BentoML service: strict requests in, logged answers out. Imported by the serving process alone."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import bentoml
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.serving import garbage
from ml_platform.serving.access import Access
from ml_platform.serving.bodies import (
    EventsRequest,
    EventsResponse,
    LabelRequest,
    LabelResponse,
    ModelResponse,
    PredictRequest,
    PredictResponse,
)
from ml_platform.serving.desk import Desk
from ml_platform.serving.front import Front
from ml_platform.serving.meters import meters_of
from ml_platform.serving.refusals import status_of
from ml_platform.spec import PlatformError, UnknownName

# Seconds. BentoML keeps a live timer per request for as long, so a minute would hold thousands of them.
_TIMEOUT = 10
_BYTES_PER_ROW = 4096  # far more than any row of entities takes; BentoML itself reads bodies of any size
_SMALLEST_LIMIT = 65536


def _answer(what: Callable[[], BaseModel]) -> Response:
    """The answer, or the reason why there is none.

    A finished response: BentoML's own way of sending one costs twice as much, and its error bodies hide the reason.
    """
    try:
        return Response(what().model_dump_json(exclude_unset=True), media_type="application/json")
    except PlatformError as error:
        return JSONResponse({"error": str(error)}, status_code=status_of(error))


class FrontedService(bentoml.Service[Any]):  # type: ignore[misc]  # BentoML carries no types
    """A BentoML service whose application has ours before it, wherever BentoML or we make one."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """The application for a server."""
        app = super().to_asgi(is_main=is_main)
        opened, largest, access = self.inner.opened, self.inner.largest, self.inner.access
        return Front(app, opened, meters_of(self.name), largest, lambda: datetime.now(UTC), access)


def prediction_service(profile: Profile, name: str, *, watched: bool = True) -> Any:
    """The BentoML service of a declared ``Service``; its stores open when the server starts.

    watched: a canary answers only while a referee gives signs of life; False: whoever started us is the referee.
    """
    declared = load_project(profile.project).services
    if name not in declared:
        raise UnknownName("service", name, declared)

    desks: list[Desk] = []  # the one that stands open in this process

    class PredictionService:
        """Async methods on one thread: a request costs less than handing it to another thread would."""

        access = Access.of(profile, name)
        largest = max(_SMALLEST_LIMIT, _BYTES_PER_ROW * declared[name].max_rows)

        def __init__(self) -> None:
            self.desk = Desk.open(profile, name, watched=watched)
            self.desk.watch.start()
            desks[:] = [self.desk]

        @staticmethod
        def opened() -> Desk | None:
            """The desk, once the server has started."""
            return desks[0] if desks else None

        # BentoML's decorators carry no types; the declared answers make its API pages.
        @bentoml.api(output_spec=EventsResponse)  # type: ignore[untyped-decorator]
        async def ingest(self, request: EventsRequest, /) -> Response:
            """Events, applied to the online features."""
            return _answer(lambda: self.desk.ingest(request, datetime.now(UTC)))

        @bentoml.api(output_spec=PredictResponse)  # type: ignore[untyped-decorator]
        async def predict(self, request: PredictRequest, /) -> Response:
            """Probabilities for rows of entities."""
            return _answer(lambda: self.desk.predict(request, datetime.now(UTC)))

        @bentoml.api(output_spec=LabelResponse)  # type: ignore[untyped-decorator]
        async def label(self, request: LabelRequest, /) -> Response:
            """Truths about earlier predictions."""
            return _answer(lambda: self.desk.label(request, datetime.now(UTC)))

        @bentoml.api(output_spec=ModelResponse)  # type: ignore[untyped-decorator]
        async def model(self) -> Response:
            """Which model version answers."""
            return _answer(self.desk.model)

        @bentoml.on_startup  # type: ignore[untyped-decorator]
        def settle(self) -> None:
            """Answer without pauses."""
            garbage.settle()

        @bentoml.on_shutdown  # type: ignore[untyped-decorator]
        def close(self) -> None:
            """Leave the log on the disk."""
            desks.clear()
            self.desk.watch.stop()
            self.desk.log.close()
            meters_of(name).flush()  # or what was counted last would be lost

        def __is_alive__(self) -> bool:
            return self.desk.watch.alive

        def __is_ready__(self) -> bool:
            return self.desk.watch.current is not None

    service = bentoml.service(
        name=name,
        service_class=FrontedService,
        description=declared[name].description,
        traffic={"timeout": _TIMEOUT},
        metrics={"enabled": True},
        logging={"access": {"enabled": False}},  # the prediction log says more, at a fraction of the cost
        tracing={"excluded_urls": [".*"]},  # nobody collects the spans, which take a third of a request's time
    )(PredictionService)
    service.add_asgi_middleware(BodyLimit, largest=PredictionService.largest)
    return service


class BodyLimit:
    """Refuses a body before it is read: too long (413), of a length not told (411), or in several parts (415)."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        """``largest`` in bytes."""
        self.app = app
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and scope["method"] == "POST":
            headers = dict(scope["headers"])
            if headers.get(b"content-type", b"").strip().lower().startswith(b"multipart/"):
                # BentoML would answer 500
                return await self._refuse(415, "send the body as application/json", scope, receive, send)
            length = headers.get(b"content-length")
            if length is None:
                return await self._refuse(
                    411, "send a Content-Length; chunked bodies are not read", scope, receive, send
                )
            if int(length) > self.largest:
                reason = f"the body has {int(length)} bytes; at most {self.largest} are read: send fewer rows at once"
                return await self._refuse(413, reason, scope, receive, send)
        return await self.app(scope, receive, send)

    async def _refuse(self, status: int, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
        answer: Callable[[Scope, Receive, Send], Awaitable[None]] = JSONResponse({"error": reason}, status_code=status)
        await answer(scope, receive, send)
