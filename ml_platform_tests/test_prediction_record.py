"""Lines put together from parts say what ``json`` would have written, whatever they hold."""

import json
import math
import zlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.stores.prediction_record import Prediction, iso, prediction_lines

NUMBERS = st.one_of(st.none(), st.floats(), st.integers(-(2**70), 2**70), st.floats().map(np.float64))
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["null", '"', "\\", "é", "\u2028", "\x00", "😀", "</script>"]))
MOMENTS = st.tuples(st.integers(-(10**15), 10**15), st.integers(-12, 12)).map(
    lambda drawn: (datetime(2013, 4, 1, tzinfo=UTC) + timedelta(microseconds=drawn[0])).astimezone(
        timezone(timedelta(hours=drawn[1]))
    )
)


@st.composite
def predictions(draw: st.DrawFn) -> list[Prediction]:
    """Some of the same moments and model, and then others, as in a batch of a replay."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        moments = [draw(MOMENTS) for _ in range(3)]
        names = tuple(f"f{n}" for n in range(draw(st.integers(0, 5))))
        model, version = draw(TEXTS), draw(TEXTS)
        for _ in range(draw(st.integers(1, 3))):
            features: Any = [draw(NUMBERS) for _ in names]
            found.append(
                Prediction(
                    prediction_id=draw(TEXTS),
                    model=model,
                    model_version=version,
                    probability=draw(st.floats() | st.floats().map(np.float64)),
                    asked_at=moments[0],
                    as_of=moments[1],
                    answered_at=moments[2],
                    entities=draw(st.dictionaries(TEXTS, TEXTS | NUMBERS, max_size=4)),
                    feature_names=names,
                    features=draw(st.sampled_from([list, tuple]))(features),
                    variant=draw(st.sampled_from(["champion", "canary", "fallback"])),
                    chance=draw(st.floats(0, 1)),
                    seconds=draw(st.none() | st.floats(0, 1e6)),
                )
            )
    return found


def expected(p: Prediction, names_id: str) -> dict[str, Any]:
    return {
        "id": p.prediction_id,
        "model": p.model,
        "version": p.model_version,
        "probability": float(p.probability),
        "asked_at": iso(p.asked_at),
        "as_of": iso(p.as_of),
        "answered_at": iso(p.answered_at),
        "entities": {name: _plain(value) for name, value in p.entities.items()},
        "variant": p.variant,
        "chance": p.chance,
        "names": names_id,
        "features": [_plain(value) for value in p.features],
        **({} if p.seconds is None else {"seconds": p.seconds}),
    }


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, float) else value


def same(one: Any, other: Any) -> bool:
    """Equal with their types and, of floats, their bits (NaN is NaN)."""
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or (one, math.copysign(1, one)) == (
            other,
            math.copysign(1, other),
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(max_examples=400, deadline=None)
@given(predictions())
def test_a_line_says_what_json_would(given_: list[Prediction]) -> None:
    names = {columns: f"id{n}" for n, columns in enumerate({p.feature_names for p in given_})}
    lines = list(prediction_lines(given_, names))
    assert len(lines) == len(given_)
    for p, line in zip(given_, lines, strict=True):
        assert line.isascii()
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        body = line[9:-1]
        assert line[:9] == b"%08x " % zlib.crc32(body)
        assert same(json.loads(body), json.loads(json.dumps(expected(p, names[p.feature_names]))))


def test_an_id_stands_in_its_line_as_json_writes_it() -> None:
    """The log is searched for it as bytes."""
    now = datetime(2013, 4, 1, tzinfo=UTC)
    for name in ("plain", "é", "\u2028😀", 'a"b\\c', "\x7f", "</x>"):
        p = Prediction(
            prediction_id=name, model="m", model_version="1", probability=0.5, asked_at=now, as_of=now,
            answered_at=now, entities={"trip": name}, feature_names=(), features=(),
        )  # fmt: skip
        (line,) = prediction_lines([p], {(): "id"})
        assert line[9:].startswith(b'{"id":' + json.dumps(name).encode())
