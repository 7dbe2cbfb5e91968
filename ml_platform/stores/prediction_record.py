"""How records of the prediction log are written: a line each, of a checksum, a space and JSON in ASCII.

A prediction's line is put together from parts, as most of it is the same for all of a batch; what the quick encoder
would write otherwise than ``json`` (numbers that are not finite, text beyond ASCII) is written by ``json``.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as text
from math import isfinite
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One answer. ``features`` are raw values before encoding, in the order of ``feature_names``; None is missing.

    asked_at, as_of: platform time of the question and of the features; answered_at: wall time.
    entities: the row as it was sent.
    variant: the version's part (champion, canary; or fallback: the champion instead of a canary that failed), and
    chance: the probability with which the row was assigned to it. seconds: that scoring took, where it was measured.
    """

    prediction_id: str
    model: str
    model_version: str
    probability: float
    asked_at: datetime
    as_of: datetime
    answered_at: datetime
    entities: Mapping[str, str | int | float | None]
    feature_names: tuple[str, ...]
    features: Sequence[float | None]
    variant: str = "champion"
    chance: float = 1.0
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A row that a version could not answer; another did."""

    prediction_id: str
    model: str
    model_version: str
    asked_at: datetime
    answered_at: datetime
    entities: Mapping[str, str | int | float | None]
    variant: str
    chance: float
    reason: str

    def record(self) -> dict[str, Any]:
        """As it stands in the log."""
        return {
            "id": self.prediction_id,
            "model": self.model,
            "version": self.model_version,
            "asked_at": iso(self.asked_at),
            "answered_at": iso(self.answered_at),
            "entities": dict(self.entities),
            "variant": self.variant,
            "chance": self.chance,
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Shadowed:
    """What a version would have answered that was not asked; ``probability`` None: it failed, for the ``reason``."""

    prediction_id: str
    variant: str
    model_version: str
    probability: float | None
    asked_at: datetime
    answered_at: datetime
    reason: str | None = None

    def record(self) -> dict[str, Any]:
        """As it stands in the log."""
        return {
            "id": self.prediction_id,
            "variant": self.variant,
            "version": self.model_version,
            "probability": self.probability,
            "asked_at": iso(self.asked_at),
            "answered_at": iso(self.answered_at),
            **({"reason": self.reason} if self.reason else {}),
        }


def line(record: Mapping[str, Any]) -> bytes:
    """Any record."""
    body = _exact(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def prediction_lines(predictions: Sequence[Prediction], names: Mapping[tuple[str, ...], str]) -> Iterator[bytes]:
    """One line a prediction; ``names``: the id under which the file keeps each list of feature names."""
    last: Prediction | None = None
    model, moments, columns = b"", b"", b""
    for p in predictions:
        if last is None or not _share(p, last):
            model = f',"model":{text(p.model)},"version":{text(p.model_version)},"probability":'.encode()
            times = f',"asked_at":"{iso(p.asked_at)}","as_of":"{iso(p.as_of)}","answered_at":"{iso(p.answered_at)}"'
            moments = f'{times},"entities":'.encode()
            part = f',"variant":{text(p.variant)},"chance":{p.chance!r}'
            columns = f'{part},"names":"{names[p.feature_names]}","features":'.encode()
        last = p
        name, probability = text(p.prediction_id).encode(), _numbers([p.probability])[1:-1]
        entities, features = _entities(p.entities), _numbers(p.features)
        took = b"" if p.seconds is None else b',"seconds":%b' % repr(p.seconds).encode()
        body = b'{"id":%b%b%b%b%b%b%b%b}' % (name, model, probability, moments, entities, columns, features, took)
        yield b"%08x %b\n" % (zlib.crc32(body), body)


def _share(p: Prediction, other: Prediction) -> bool:
    """Whether all but row, vector and answer are the very same objects."""
    return (
        p.answered_at is other.answered_at
        and p.asked_at is other.asked_at
        and p.as_of is other.as_of
        and p.model is other.model
        and p.model_version is other.model_version
        and p.feature_names is other.feature_names
        and p.variant is other.variant
        and p.chance == other.chance
    )


def iso(moment: datetime) -> str:
    """In UTC, to the microsecond."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _exact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _numbers(values: Sequence[float | None]) -> bytes:
    """A list of numbers and nulls."""
    try:
        encoded = _encode(values)
    except (TypeError, OverflowError):  # numbers of NumPy's, or of more than 64 bits
        return _exact(values)
    # It writes NaN and infinity as null; in a list of numbers nothing else can hold these four letters.
    if b"null" in encoded and encoded.count(b"null") != sum(value is None for value in values):
        return _exact(values)
    return encoded


def _entities(row: Mapping[str, Any]) -> bytes:
    try:
        encoded = _encode(row)
    except (TypeError, OverflowError):
        return _exact(dict(row))
    if not encoded.isascii() or (b"null" in encoded and not all(map(_finite, row.values()))):
        return _exact(dict(row))
    return encoded


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or isfinite(value)
