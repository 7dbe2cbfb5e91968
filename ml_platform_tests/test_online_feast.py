"""The online stores and Feast itself: the same bytes, and each reads what the other wrote."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.stores.feast_bytes import (
    decode_moment,
    decode_value,
    encode_moment,
    encode_value,
    entity_key_encoder,
    hash_field,
    micros,
)
from ml_platform.stores.online import online_store
from ml_platform.stores.online_decode import Status
from ml_platform_tests.online_world import BOTH, CITY, HOUR, city_rows, feast_store, opened
from ml_platform_tests.online_writer import NOON, VIEW, rows

PRESENT, NULL, NOT_FOUND, EXPIRED = Status
int64s = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)  # the first one imports Feast
@given(int64s, texts)
def test_keys_are_feasts_bytes(line: int, city: str) -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    proto = EntityKey(join_keys=["line", "city"], entity_values=[Value(int64_val=line), Value(string_val=city)])
    expected = serialize_entity_key(proto, entity_key_serialization_version=3)
    assert entity_key_encoder(("line", "city"))((line, city)) == expected


@settings(deadline=None)  # the first one imports Feast
@given(int64s, st.floats(), texts, texts)
def test_values_and_fields_are_feasts_bytes(whole: int, real: float, view: str, feature: str) -> None:
    from feast.infra.online_stores.helpers import _mmh3
    from feast.protos.feast.types.Value_pb2 import Value

    assert encode_value(whole) == Value(int64_val=whole).SerializeToString()
    assert encode_value(real) == Value(double_val=real).SerializeToString()
    assert encode_value(None) == Value().SerializeToString()
    assert hash_field(view, feature) == _mmh3(f"{view}:{feature}")
    with pytest.raises(ValueError, match="neither an int64 nor a double"):
        decode_value(Value(string_val="x").SerializeToString())


@given(st.integers(-(2 * 10**15), 2 * 10**15).map(lambda since: NOON + timedelta(microseconds=since)))
def test_moments_are_protobufs_bytes(moment: datetime) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    proto = Timestamp()
    proto.FromDatetime(moment)
    assert encode_moment(micros(moment)) == proto.SerializeToString()
    assert decode_moment(proto.SerializeToString()) == micros(moment)


def test_a_moment_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no timestamp: tag 0x29"):
        decode_moment(encode_value(1.0))


FEATURES = ["line_state:wait", "line_state:trips", "city_state:snow", "city_state:events"]
WANTED = [(VIEW, ("wait", "trips")), (CITY, ("snow", "events"))]
ASKED = [{"line": 1, "city": "a"}, {"line": -2, "city": "Zürich"}, {"line": 1, "city": "a"}]
LINE_ROWS = rows((1, "a", NOON, 0.5, 3), (-2, "Zürich", NOON - HOUR, None, -(2**40)))
CITY_ROWS = city_rows(("a", NOON, 1.5, 0.0, 300), ("Zürich", NOON, None, 2.5, 1))
EXPECTED = [(0.5, 3, 0.0, 300), (None, -(2**40), 2.5, 1), (0.5, 3, 0.0, 300)]


def answers_of_feast(feast: Any) -> list[tuple[Any, ...]]:
    found = feast.get_online_features(features=FEATURES, entity_rows=ASKED).to_dict()
    return list(zip(*(found[name.split(":")[1]] for name in FEATURES), strict=True))


@pytest.mark.parametrize("kind", BOTH)
def test_feast_and_we_read_what_the_other_wrote(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as (address, project):
        feast = feast_store(tmp_path, address, project)
        store = online_store(address, project)
        plan = store.plan(WANTED)

        # Feast reads ours, with its event times.
        store.publish(VIEW, LINE_ROWS, NOON)
        store.publish(CITY, CITY_ROWS, NOON)
        assert answers_of_feast(feast) == EXPECTED
        assert plan.read(ASKED, NOON).values == EXPECTED
        response = feast.get_online_features(features=["line_state:wait"], entity_rows=ASKED[:2]).proto
        moments = [result.event_timestamps for result in response.results][-1]
        assert [moment.ToDatetime(NOON.tzinfo) for moment in moments] == [NOON, NOON - HOUR]

        # Feast writes over it: we read that, and its age.
        newer = rows((1, "a", NOON + HOUR, 7.5, 9)).to_pandas()
        feast.write_to_online_store("line_state", newer)
        feast.write_to_online_store("city_state", city_rows(("a", NOON + HOUR, None, None, 4)).to_pandas())
        found = plan.read(ASKED[:1], NOON + 25 * HOUR)
        assert (found.values, found.statuses) == ([(7.5, 9, None, 4)], [(PRESENT, PRESENT, NULL, PRESENT)])
        found = plan.read(ASKED[:1], NOON + 25 * HOUR + timedelta(microseconds=1))
        assert (found.values, found.statuses) == ([(7.5, 9, None, None)], [(PRESENT, PRESENT, EXPIRED, EXPIRED)])

        # What it wrote is newer than ours, and older than ours.
        assert store.publish(VIEW, rows((1, "a", NOON + HOUR / 2, 0.0, 0)), NOON + 3 * HOUR) == 0
        assert answers_of_feast(feast)[0][:2] == (7.5, 9)
        assert store.publish(VIEW, rows((1, "a", NOON + 1.5 * HOUR, 8.5, 10)), NOON) == 1
        assert answers_of_feast(feast)[0][:2] == (8.5, 10)

        # What Feast materializes from a table, we read.
        three = rows(*((line, "b", NOON + n * HOUR, line + n / 10, n) for line in (5, 6) for n in range(3)))
        three.write_parquet(tmp_path / "line_state.parquet")
        pl.concat([CITY_ROWS, city_rows(("b", NOON, 1.0, 2.0, 3))]).write_parquet(tmp_path / "city_state.parquet")
        feast.materialize(NOON - HOUR, NOON + 5 * HOUR)
        found = plan.read([{"line": line, "city": "b"} for line in (5, 6, 7)], NOON)
        assert found.values == [(5.2, 2, 2.0, 3), (6.2, 2, 2.0, 3), (None, None, 2.0, 3)]
        assert found.statuses[2] == (NOT_FOUND, NOT_FOUND, PRESENT, PRESENT)
