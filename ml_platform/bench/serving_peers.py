"""The peers of the benchmark of serving: BentoML and FastAPI used as their documentation shows, and a static answer.

``python -m ml_platform.bench.serving_peers ARM MODEL_FILE REDIS_PORT LOG FD``. Each does the same work as ours: it
reads the row with pydantic, takes thirty features from the same hashes of Redis with redis-py and looks whether they
are too old, asks the booster, writes one record a request to its log, and answers the same body.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ml_platform.bench.serving_world import ENTITIES, KEPT, PROJECT, SERVICE
from ml_platform.serving.garbage import settle
from ml_platform.stores.clock import Clock
from ml_platform.stores.feast_bytes import (
    decode_moment,
    decode_value,
    entity_key_encoder,
    hash_field,
    micros,
    moment_field,
)

ARMS = ("bentoml", "bentoml_tuned", "fastapi", "fastapi_tuned", "static")
_VIEWS = ("spending", "visits")


class Ask(BaseModel):
    """A row, as strict as ours."""

    model_config = ConfigDict(extra="forbid", strict=True)
    ask: str
    user: int | None


class Asks(BaseModel):
    """The body."""

    model_config = ConfigDict(extra="forbid", strict=True)
    rows: list[Ask]
    asked_at: datetime | None = None


class Probability(BaseModel):
    """An answer."""

    prediction_id: str
    probability: float


class Answer(BaseModel):
    """The answers."""

    predictions: list[Probability]
    model_version: str


class Usual:
    """Features, model and log, as one writes them without a platform."""

    def __init__(self, model_file: Path, redis_port: int, log: Path) -> None:
        import lightgbm as lgb
        import redis

        self._booster = lgb.Booster(model_str=model_file.read_text())
        self._redis = redis.Redis(port=redis_port)  # it parses with hiredis, which is installed
        self._fields = [hash_field(view, f"{view}_{n}") for view in _VIEWS for n in range(15)]
        self._names = [f"{view}__{view}_{n}" for view in _VIEWS for n in range(15)]
        self._moments = [moment_field(view) for view in _VIEWS]
        self._encode = entity_key_encoder(("user",))
        self._log = log.open("ab", buffering=0)

    def _vectors(self, rows: Sequence[Ask], now: datetime) -> list[list[Any]]:
        oldest = micros(now - KEPT)
        found = []
        for reply in self._replies(rows):
            values = [None if value is None else decode_value(value) for value in reply[:30]]
            for view, moment in enumerate(reply[30:]):
                if moment is None or decode_moment(moment) < oldest:
                    values[15 * view : 15 * view + 15] = [None] * 15
            found.append(values)
        return found

    def _replies(self, rows: Sequence[Ask]) -> list[Any]:
        names: list[Any] = [*self._fields, *self._moments]
        keys: list[Any] = [self._encode((row.user or 0,)) + PROJECT.encode() for row in rows]
        if len(keys) == 1:
            return [self._redis.hmget(keys[0], names)]
        together = self._redis.pipeline(transaction=False)
        for key in keys:
            together.hmget(key, names)
        return together.execute()

    def answer(self, asked: Asks) -> Answer:
        """Look up, predict, log."""
        now = Clock.wall()
        moment = (asked.asked_at or now).isoformat()
        vectors = self._vectors(asked.rows, now)
        probabilities = self._booster.predict(np.array(vectors, dtype=np.float64))
        lines = []
        for row, vector, probability in zip(asked.rows, vectors, probabilities, strict=True):
            record = {
                "id": row.ask,
                "version": "1",
                "probability": float(probability),
                "asked_at": moment,
                "entities": {"ask": row.ask, "user": row.user},
                "features": vector,
            }
            lines.append(json.dumps(record) + "\n")
        self._log.write("".join(lines).encode())
        return Answer(
            predictions=[
                Probability(prediction_id=row.ask, probability=float(probability))
                for row, probability in zip(asked.rows, probabilities, strict=True)
            ],
            model_version="1",
        )


def bentoml_app(usual: Usual, *, tuned: bool) -> Any:
    """A BentoML service; ``tuned``: an async method, no access log, no spans, a short timeout."""
    import bentoml

    if not tuned:

        class Plain:
            @bentoml.api  # type: ignore[untyped-decorator]
            def predict(self, request: Asks, /) -> Answer:
                return usual.answer(request)

        return bentoml.service(name=SERVICE)(Plain).to_asgi(is_main=True)

    class Tuned:
        @bentoml.api  # type: ignore[untyped-decorator]
        async def predict(self, request: Asks, /) -> Answer:
            return usual.answer(request)

    options: dict[str, Any] = {
        "traffic": {"timeout": 2},
        "logging": {"access": {"enabled": False}},
        "tracing": {"excluded_urls": [".*"]},
    }
    return bentoml.service(name=SERVICE, **options)(Tuned).to_asgi(is_main=True)


def fastapi_app(usual: Usual, *, tuned: bool) -> Any:
    """A FastAPI application; ``tuned``: an async function that returns a finished response."""
    from fastapi import FastAPI, Response

    app = FastAPI()
    if not tuned:

        @app.post("/predict")
        def predict(request: Asks) -> Answer:
            return usual.answer(request)

        return app

    @app.post("/predict")
    async def predict_tuned(request: Asks) -> Response:
        return Response(usual.answer(request).model_dump_json(), media_type="application/json")

    return app


async def static_app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers always the same: what server and generator allow."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    body = b'{"predictions":[{"prediction_id":"q12345","probability":0.4444444444444444}],"model_version":"1"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(arm: str, usual: Usual, listening: socket.socket) -> None:
    """Under uvicorn, which is what BentoML's own worker does; tuned arms without an access log."""
    import uvicorn

    tuned = arm.endswith("tuned")
    if arm.startswith("bentoml"):
        from bentoml._internal.context import server_context
        from bentoml._internal.log import configure_server_logging

        configure_server_logging()
        server_context.service_type = "entry_service"
        server_context.service_name = server_context.bento_name = SERVICE
        app = bentoml_app(usual, tuned=tuned)
    else:
        app = fastapi_app(usual, tuned=tuned) if arm.startswith("fastapi") else static_app
    if tuned or arm == "static":
        settle()
    settings: dict[str, Any] = {"log_config": None} if arm.startswith("bentoml") else {}
    config = uvicorn.Config(app, access_log=not tuned and arm != "static", timeout_keep_alive=75, **settings)
    uvicorn.Server(config).run(sockets=[listening])


def main() -> None:
    """See the module."""
    arm, model_file, redis_port, log, descriptor = sys.argv[1:]
    usual = Usual(Path(model_file), int(redis_port), Path(log))
    usual.answer(Asks(rows=[Ask(ask="warm", user=ENTITIES - 1)], asked_at=datetime(2026, 1, 1, tzinfo=UTC)))
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    serve(arm, usual, socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    main()
