"""Asks a running service over HTTP; connections are kept open, one a thread."""

import http.client
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from ml_platform.spec import RequestRefused, ServiceError
from ml_platform.stores.prediction_log import Truth

Row = Mapping[str, str | int | float | None]
_TIMEOUT_SECONDS = 30
_ATTEMPTS = 3  # a connection that the server closed meanwhile is opened again; the log drops doubles


@dataclass(frozen=True)
class Answers:
    """One probability a row, by prediction id, and the model version that gave them."""

    probabilities: Mapping[str, float]
    model_version: str


class Client:
    """A service's caller; use it from as many threads as wanted."""

    def __init__(self, base_url: str, *, key: str | None = None) -> None:
        """``base_url``: ``http://host:port`` (or https); nothing is opened before the first request.

        key: that the service asks for, if it asks for one (`ml-platform keys add` makes it).
        """
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or address.hostname is None:
            raise ServiceError(f"{base_url!r} is not the address of a service; it looks like http://127.0.0.1:3000")
        self.base_url = base_url
        self._host, self._port = address.hostname, address.port
        self._opens = http.client.HTTPConnection if address.scheme == "http" else http.client.HTTPSConnection
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._local = threading.local()

    def predict(self, rows: Sequence[Row], asked_at: datetime | None = None) -> Answers:
        """Probabilities for rows of entities and whatever else a request carries, asked at a moment (None: now).

        Raises:
            RequestRefused: the service does not accept a row; names row and field.
            ServiceError: it is not to be reached, has no champion yet, or failed.
        """
        moment = asked_at.isoformat() if asked_at else None
        body = self._post("/predict", {"rows": list(rows), "asked_at": moment})
        found = {answer["prediction_id"]: answer["probability"] for answer in body["predictions"]}
        return Answers(probabilities=found, model_version=body["model_version"])

    def predict_many(self, questions: Iterable[tuple[Row, datetime]], concurrency: int = 4) -> list[Answers]:
        """Every (row, asked at) as its own request, over ``concurrency`` connections; answers in the same order.

        Raises:
            ServiceError: as ``predict``; requests that were not sent yet are given up.
        """
        asked = list(questions)
        if len(asked) == 1:
            ((row, asked_at),) = asked
            return [self.predict([row], asked_at)]
        with ThreadPoolExecutor(concurrency, thread_name_prefix="client") as pool:
            waiting = [pool.submit(self.predict, [row], asked_at) for row, asked_at in asked]
            try:
                return [answer.result() for answer in waiting]
            except BaseException:  # Ctrl-C, too, must not wait for thousands of requests
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def ingest(self, events: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Post rows of raw tables, by table; returns those that broke their contract and were left out.

        Raises:
            RequestRefused: the service does not accept a row; names table, row and column. Nothing was applied.
            ServiceError: as ``predict``.
        """
        rows = {table: [_plain(row) for row in found] for table, found in events.items()}
        aside: list[dict[str, Any]] = self._post("/ingest", {"events": rows})["set_aside"]
        return aside

    def label(self, truths: Sequence[Truth]) -> int:
        """Post truths; returns how many are in the log now.

        Raises:
            ServiceError: as ``predict``.
        """
        facts = [
            {"prediction_id": t.prediction_id, "value": t.value, "known_at": t.known_at.isoformat()} for t in truths
        ]
        return int(self._post("/label", {"labels": facts})["accepted"])

    def model(self) -> dict[str, Any]:
        """Name, version, since when, inputs, and versions that were refused.

        Raises:
            ServiceError: it is not to be reached or has no champion yet.
        """
        return self._post("/model", {})

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        status, content = self._send(path, json.dumps(body).encode())
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise ServiceError(f"{self.base_url}{path} answered {status} with {content[:80]!r}, no JSON") from error
        if status == 200:
            found: dict[str, Any] = answer
            return found
        reason = _reason(answer)
        if status in (400, 411, 413, 415):
            raise RequestRefused(f"{self.base_url}{path} refused the request: {reason}")
        raise ServiceError(f"{self.base_url}{path} answered {status}: {reason}")

    def _send(self, path: str, body: bytes) -> tuple[int, bytes]:
        for attempt in range(_ATTEMPTS):
            connection = self._connection()
            try:
                connection.request("POST", path, body, self._headers)
                response = connection.getresponse()
                return response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if attempt == _ATTEMPTS - 1 or isinstance(error, TimeoutError | ConnectionRefusedError):
                    raise ServiceError(
                        f"{self.base_url}{path} is not to be reached ({error or type(error).__name__}); is the service "
                        f"running? `ml-platform serve` starts it"
                    ) from error
        raise AssertionError("unreachable")

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._local, "connection"):
            self._local.connection = self._opens(self._host, self._port, timeout=_TIMEOUT_SECONDS)
        connection: http.client.HTTPConnection = self._local.connection
        return connection


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def _reason(answer: Any) -> str:
    """The sentence in our own and in BentoML's error bodies."""
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return str(answer)
    details = [f"{'.'.join(map(str, d.get('loc', ())))}: {d.get('msg')}" for d in answer.get("detail") or []]
    return "; ".join([str(answer.get("error", answer)), *details])
