"""Events posted to the service: strict rows, nothing applied of a bad batch, the contract's rules kept."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from ml_platform.serving.bodies import EventsRequest, EventsResponse, PredictRequest
from ml_platform.serving.desk import Desk
from ml_platform.spec import RequestRefused, UnknownName
from ml_platform_tests.serving_world import NOON, World, standard

WALL = datetime(2026, 1, 1, tzinfo=UTC)
TRIP = {
    "trip": "new",
    "city": "Rome",
    "line": 3,
    "load": 0.5,
    "leaves": "2013-04-01T20:00:00+00:00",
    "known_at": "2013-04-01T15:00:00+00:00",
}
ARRIVAL = {"trip": "a1", "line": 8, "delay": 20, "known_at": "2013-04-01T16:00:00+02:00"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    for tiny in standard(tmp_path_factory.mktemp("events")):
        yield _opened(tiny)


def _opened(tiny: World) -> Desk:
    return Desk.open(tiny.profile, "desk")


def post(desk: Desk, **events: list[dict[str, Any]]) -> EventsResponse:
    return desk.ingest(EventsRequest(events=events), WALL)


def mean(desk: Desk, line: int, at: datetime = NOON) -> Any:
    return desk.live.values([("line_past", (line,))], at)[0]["delay_mean_1d"]


def test_events_count_from_when_they_became_known_and_only_once(desk: Desk) -> None:
    second = {**ARRIVAL, "trip": "a2", "delay": 40.0, "known_at": "2013-04-01T10:00:00-04:00"}
    assert post(desk, arrivals=[second, ARRIVAL]).model_dump() == {"accepted": 2, "set_aside": []}
    post(desk, arrivals=[ARRIVAL])
    known = datetime(2013, 4, 1, 14, tzinfo=UTC)  # both of them, in two notations
    assert mean(desk, 8) == 30.0
    assert [mean(desk, 8, known - timedelta(microseconds=1)), mean(desk, 8, known)] == [None, 30.0]
    assert mean(desk, 8, known + timedelta(days=1)) is None


def test_the_newest_stored_value_is_replaced_and_not_by_an_older_one(desk: Desk) -> None:
    post(desk, trips=[{**TRIP, "trip": "n1", "city": "Bonn"}])
    post(desk, trips=[{**TRIP, "trip": "n0", "city": "Bonn", "load": 0.1, "known_at": "2013-04-01T14:00:00+00:00"}])
    assert desk.online.read(desk.project.views["city_load"], [("Bonn",)]) == [{"load": 0.5, "newest": 3}]


def test_a_row_that_breaks_a_rule_is_set_aside_with_its_reason_and_the_others_count(desk: Desk) -> None:
    rows = [{**ARRIVAL, "trip": f"r{n}", "line": 9, "delay": delay} for n, delay in enumerate([10, 9999, 30])]
    (aside,) = post(desk, arrivals=rows).set_aside
    assert (aside.table, aside.row, aside.reason) == ("arrivals", 1, "delay_between_-100_and_1000")
    assert mean(desk, 9) == 20.0


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no key", {"trip": None}, r"arrivals, row 1, column 'trip': is null"),
    ("no time", {"known_at": None}, r"column 'known_at': is null"),
    ("no zone", {"known_at": "2013-04-01T15:00:00"}, r"column 'known_at': .* has no time zone"),
    ("no date", {"known_at": "yesterday"}, r"'yesterday' is not an ISO 8601 time"),
    ("from the future", {"known_at": "2027-04-01T15:00:00+00:00"}, r"'known_at': .* lies outside"),
    ("before the project", {"known_at": "1970-01-01T00:00:00+00:00"}, r"'known_at': .* lies outside"),
    ("text for a number", {"delay": "20"}, r"column 'delay': '20' is not a number of the type Float64"),
    ("a fraction", {"line": 1.5}, r"column 'line': '1.5' is not of the type Int64"),
    ("a truth for a number", {"line": True}, r"column 'line': 'True' is not of the type Int64"),
    ("a number for text", {"trip": 4}, r"column 'trip': '4' is not of the type String"),
    ("a new column", {"colour": "red"}, r"unknown colour; the columns are trip, line, delay, known_at"),
]


@pytest.mark.parametrize(("change", "reason"), [pair[1:] for pair in BAD], ids=[pair[0] for pair in BAD])
def test_a_bad_row_is_named_and_nothing_of_its_batch_counts(desk: Desk, change: dict[str, Any], reason: str) -> None:
    good = {**ARRIVAL, "trip": "good", "line": 10}
    with pytest.raises(RequestRefused, match=reason):
        post(desk, arrivals=[good, {**good, "trip": "bad", **change}])
    assert mean(desk, 10) is None


def test_a_missing_column_an_unknown_table_and_too_many_rows_are_named(desk: Desk) -> None:
    with pytest.raises(RequestRefused, match=r"arrivals, row 0: missing delay"):
        post(desk, arrivals=[{name: value for name, value in ARRIVAL.items() if name != "delay"}])
    with pytest.raises(UnknownName, match=r"no table of events named 'arivals'; did you mean arrivals"):
        post(desk, arivals=[ARRIVAL])
    with pytest.raises(RequestRefused, match=r"21 are too many; send at most 20"):
        post(desk, arrivals=[ARRIVAL] * 21)
    with pytest.raises(RequestRefused, match=r"events: is empty"):
        post(desk)


def test_the_live_value_is_the_batch_value_of_the_same_rows(desk: Desk) -> None:
    from ml_platform.features.windows import values_at

    moments = [NOON - timedelta(minutes=7 * n) for n in range(20)]
    rows = [{"trip": f"b{n}", "line": 11, "delay": 1.1 * n, "known_at": at.isoformat()} for n, at in enumerate(moments)]
    post(desk, arrivals=rows[::-1])
    frame = pl.DataFrame(rows).with_columns(pl.Series("known_at", moments).dt.cast_time_unit("us"))
    points = pl.DataFrame({"line": [11] * 20, "as_of": moments}).with_columns(pl.col("as_of").dt.cast_time_unit("us"))
    expected = values_at(desk.project.views["line_past"], {"arrivals": frame}, points)["delay_mean_1d"].to_list()
    assert [mean(desk, 11, at) for at in moments] == expected


def test_a_moment_whose_events_may_be_gone_is_refused_and_not_answered_with_less(desk: Desk) -> None:
    desk.live.keep_from(NOON)
    row = {"trip": "old", "city": "Rome", "line": 8}
    early = PredictRequest(rows=[row], asked_at=(NOON - timedelta(hours=1)).isoformat())
    with pytest.raises(RequestRefused, match=r"live windows are kept as of 2013-04-01 16:20:00\+00:00 on"):
        desk.predict(early, WALL)
    desk.predict(PredictRequest(rows=[row], asked_at=(NOON + timedelta(hours=1)).isoformat()), WALL)
