"""Bodies read at one go: accepted if and only if the exact rules accept them, and then with the same rows."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ml_platform.serving.bodies import PredictRequest
from ml_platform.serving.quick_body import BodyReader
from ml_platform.serving.requests import RowRules, check_rows
from ml_platform.spec import RequestRefused

RULES = RowRules(
    key="trip",
    types={
        "trip": "string",
        "line": "int64",
        "any": "key",
        "price": "float64",
        "peak": "bool",
        "happens_at": "timestamp",
        "odd-name": "string",
    },
    max_rows=4,
)
READER = BodyReader(RULES)
Read = tuple[list[dict[str, Any]], str | None] | None

GOOD = {
    "trip": ['"a"', '"b"', r'"\u0000"', '"' + "é" * 256 + '"', r'"\ud83d\ude00"'],
    "line": ["0", "-7", str(2**63 - 1), str(-(2**63)), "null", "-0"],
    "any": ['"x"', "5", "null"],
    "price": ["0", "2.5", "7", "1e300", "-1e300", "1e-400", "null", "1E5", "123456789012345678"],
    "peak": ["true", "false", "null"],
    "happens_at": ['"2013-04-01T12:00:00Z"', '"2013-04-01 12:00+02:00"', "null"],
    "odd-name": ['"n"', "null"],
}
BAD = [
    "null", "true", "1", "1.0", "1e2", '""', '"' + "é" * 257 + '"', '"1"', "NaN", "Infinity", "-Infinity", "1e400",
    "1.1e300", str(2**63), str(-(2**63) - 1), "9" * 400, "9" * 5000, "[]", "{}", '["a"]', r'"\ud800"', '"\x01"',
    '"2013-04-01T12:00:00"', '"noon"', '"1800-01-01T00:00:00Z"', '"9999-12-31T23:59:59-14:00"', "01", "+1", "nul", "",
    "[" * 3000 + "]" * 3000,
]  # fmt: skip


def exact(body: bytes) -> Read:
    """As the slow way judges."""
    try:
        request = PredictRequest.model_validate_json(body)
        return check_rows(request.rows, RULES), request.asked_at  # type: ignore[return-value]
    except (ValidationError, RequestRefused):
        return None


def typed(found: Read) -> Any:
    """Comparable: rows as sorted pairs with the type of each value."""
    if found is None:
        return None
    return [sorted((k, type(v).__name__, v) for k, v in row.items()) for row in found[0]], found[1]


@st.composite
def a_row(draw: st.DrawFn, trip: str) -> str:
    fields = {name: draw(st.sampled_from(values)) for name, values in GOOD.items()} | {"trip": trip}
    kind = draw(st.sampled_from(["good"] * 15 + ["bad value", "missing", "unknown"]))
    name = draw(st.sampled_from(list(fields)))
    if kind == "bad value":
        fields[name] = draw(st.sampled_from(BAD))
    if kind == "missing":
        del fields[name]
    if kind == "unknown":
        fields[draw(st.sampled_from(["cityy", "", "f0", "rows", "tripp"]))] = "1"
    names = draw(st.permutations(list(fields)))
    return "{" + ", ".join(f"{json.dumps(each)}: {fields[each]}" for each in names) + "}"


@st.composite
def a_body(draw: st.DrawFn) -> bytes:
    count = draw(st.sampled_from([1, 1, 1, 2, 2, 3, 4, 0, 5]))
    trips = [draw(st.sampled_from(GOOD["trip"])) if draw(st.booleans()) else f'"t{n}"' for n in range(count)]
    rows = "[" + ",".join(draw(a_row(trip)) for trip in trips) + "]"
    asked = draw(st.sampled_from(["", ', "asked_at": null', ', "asked_at": "2013-04-01T12:00:00Z"', ', "asked_at": 5']))
    text = draw(
        st.sampled_from(
            ['{"rows": %s%s}'] * 8 + ['{"rows": %s%s, "more": 1}', "[%s%s]", '{"row": %s%s}', ' {"rows": %s%s} \n']
        )
    )
    body = (text % (rows, asked)).encode()
    change = draw(st.sampled_from(["none"] * 8 + ["cut", "byte", "tail"]))
    at = draw(st.integers(0, len(body)))
    if change == "cut":
        return body[:at]
    if change == "byte":
        return body[:at] + draw(st.sampled_from([b"\xff", b"\x00", b"\xc3", b"}"])) + body[at:]
    return body + b"x" if change == "tail" else body


@settings(max_examples=1500, deadline=None)
@given(a_body())
def test_it_accepts_what_the_exact_rules_accept_and_reads_the_same(body: bytes) -> None:
    assert typed(READER.read(body)) == typed(exact(body))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_anything_else_is_left_to_the_exact_way(body: bytes) -> None:
    assert READER.read(body) is None


@pytest.mark.parametrize("first", ["7", '"x"', "null"])
def test_a_field_that_stands_twice_is_read_as_its_last_or_left_to_the_exact_way(first: str) -> None:
    """JSON allows it. Where the first is wrong only the exact way accepts, so nothing is refused that was not."""
    row = ", ".join(f"{json.dumps(name)}: {values[0]}" for name, values in GOOD.items())
    body = f'{{"rows": [{{"line": {first}, {row}}}]}}'.encode()
    slow = exact(body)
    assert slow is not None
    assert READER.read(body) is None if first == '"x"' else typed(READER.read(body)) == typed(slow)


def test_both_answers_are_frequent_enough_to_compare() -> None:
    """Or the property above would compare refusals with refusals."""
    accepted: list[bool] = []

    @settings(max_examples=300, deadline=None, database=None)
    @given(a_body())
    def look(body: bytes) -> None:
        accepted.append(READER.read(body) is not None)

    look()
    assert 0.15 < sum(accepted) / len(accepted) < 0.9
