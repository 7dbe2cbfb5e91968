"""The bodies of requests and responses; their schemas make the API pages."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class PredictRequest(BaseModel):
    """Rows of entities; ``asked_at`` (ISO 8601 with a zone) is given where time is replayed, else it is now."""

    model_config = ConfigDict(extra="forbid", strict=True)
    rows: list[dict[str, Any]]
    asked_at: str | None = None


class Answer(BaseModel):
    """The probability that was logged under this id; ``model_version`` where another than the response's gave it."""

    prediction_id: str
    probability: float
    model_version: str | None = None


class PredictResponse(BaseModel):
    """One answer a row, in the order of the rows."""

    predictions: list[Answer]
    model_version: str


class EventsRequest(BaseModel):
    """Rows of raw tables, by the table's name; times are ISO 8601 with a zone."""

    model_config = ConfigDict(extra="forbid", strict=True)
    events: dict[str, list[dict[str, Any]]]


class AsideRow(BaseModel):
    """A row that broke its table's contract and was left out."""

    table: str
    row: int
    reason: str


class EventsResponse(BaseModel):
    """How many events count now, and which do not."""

    accepted: int
    set_aside: list[AsideRow]


class LabelFact(BaseModel):
    """A truth (null: there is none, as for a cancelled flight); ``known_at`` is ISO 8601 with a zone."""

    model_config = ConfigDict(extra="forbid", strict=True)
    prediction_id: Any
    value: Any
    known_at: str


class LabelRequest(BaseModel):
    """Truths that became known."""

    model_config = ConfigDict(extra="forbid", strict=True)
    labels: list[LabelFact]


class LabelResponse(BaseModel):
    """How many truths are in the log now."""

    accepted: int


class ModelResponse(BaseModel):
    """What answers: a champion's version, since when, from which inputs; and the canary's, for its share of the units.

    rollout: the change of the rollout's file that this is as of; 0 without one.
    """

    name: str
    version: str
    loaded_at: str
    inputs: list[str]
    refused: dict[str, str]
    canary: str | None = None
    share: float = 0.0
    rollout: int = 0
