"""Reading whole hashes or some of their fields, and decoding replies: always what a plain oracle says."""

import random
import re
from dataclasses import replace
from datetime import timedelta

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.spec import Latest
from ml_platform.stores.feast_bytes import (
    Value,
    decode_moment,
    decode_value,
    encode_moment,
    encode_value,
    entity_key_encoder,
    hash_field,
    micros,
    moment_field,
)
from ml_platform.stores.online_decode import Decoder, Part, Reply, Status
from ml_platform.stores.online_redis import RedisOnlineStore
from ml_platform.stores.redis_wire import RedisWire, packed
from ml_platform_tests.online_world import HOUR
from ml_platform_tests.online_writer import NOON, VIEW
from ml_platform_tests.redis_server import Server

PRESENT, NULL, NOT_FOUND, EXPIRED = Status
WIDE = replace(
    VIEW,
    name="line_wide",
    features=tuple(Latest(f"wide_{n}", "int64" if n % 5 == 0 else "float64") for n in range(40)),
    online_for=2 * HOUR,
)
KEY = entity_key_encoder(("line", "city"))
moments = st.sampled_from([NOON - 3 * HOUR, NOON - 2 * HOUR, NOON, NOON.replace(year=1970, month=1, day=1, hour=0)])
values = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


def expected(part: Part, fields: dict[str, bytes], moment: bytes | None) -> list[tuple[Value, Status]]:
    """Each feature by itself."""
    if moment is None:
        return [(part.missing[feature], NOT_FOUND) for feature in part.features]
    if part.keep is not None and decode_moment(moment) < micros(NOON) - part.keep:
        return [(part.missing[feature], EXPIRED) for feature in part.features]
    return [
        (decode_value(fields[feature]), PRESENT if fields[feature] else NULL)
        if feature in fields
        else (part.missing[feature], NOT_FOUND)
        for feature in part.features
    ]


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_replies_are_decoded_as_field_after_field_is(data: st.DataObject) -> None:
    wanted = st.lists(st.sampled_from(list(WIDE.schema())), unique=True, min_size=1, max_size=6)
    views = [WIDE, replace(WIDE, name="line_other", online_for=None)]
    parts = [Part(view, data.draw(wanted), data.draw(st.booleans())) for view in data.draw(st.permutations(views))]
    decoder = Decoder(parts)
    stored = {
        part.view.name: (
            data.draw(st.dictionaries(st.sampled_from(part.features), values.map(encode_value))),
            data.draw(st.none() | moments.map(micros).map(encode_moment)),
        )
        for part in parts
    }
    reply: Reply = [
        stored[view][1] if feature is None else stored[view][0].get(feature) for view, feature in decoder.fields
    ]
    ((found, statuses),) = decoder.decode([reply], micros(NOON))
    told = [pair for part in parts for pair in expected(part, *stored[part.view.name])]
    assert list(zip(found, statuses, strict=True)) == told
    assert [type(value) for value in found] == [type(value) for value, _ in told]


def calls(server: Server, command: str) -> int:
    (told,) = RedisWire(server.url, HOUR).ask(packed("INFO", "commandstats"), 1)
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", told.decode())
    return int(found[1]) if found else 0


@pytest.mark.service("redis")
def test_whole_hashes_and_some_fields_of_them_are_the_same(server: Server) -> None:
    """Hashes of every kind: in any order, with gaps, with fields of others, longer than is worth reading whole."""
    chance = random.Random(20240501)
    store = RedisOnlineStore(server.url, "demo")
    features = [name for name in WIDE.schema() if name != "wide_39"]
    plan, part = store.plan([(WIDE, features)]), Part(WIDE, features, fill=False)
    told: list[list[tuple[Value, Status]]] = []
    with redis.Redis(port=server.port) as client:
        for line in range(200):
            kinds = WIDE.schema()
            some = [name for name in kinds if line % 7 or chance.random() < 0.8]
            drawn = {
                name: encode_value(
                    None
                    if chance.random() < 0.05
                    else chance.randrange(-9, 3000)
                    if kinds[name] == "int64"
                    else chance.random()
                )
                for name in some
            }
            moment = None if line % 31 == 5 else encode_moment(micros(NOON - timedelta(hours=line % 4)))
            stored = {hash_field("line_wide", name): value for name, value in drawn.items()}
            stored |= {moment_field("line_wide"): moment} if moment is not None else {}
            stored |= {b"of others %d" % n: b"x" for n in range(400 if line % 50 == 9 else line % 3)}
            order = list(stored)
            if line % 2:
                chance.shuffle(order)
            if line % 41:
                client.hset(KEY((line, "a")) + b"demo", mapping={name: stored[name] for name in order})
                told.append(expected(part, drawn, moment))
            else:
                told.append([(None, NOT_FOUND)] * len(features))
        for _ in range(300):
            lines = [chance.randrange(200) for _ in range(chance.choice([1, 3, 20]))]
            found = plan.read([{"line": line, "city": "a"} for line in lines], NOON)
            for line, row, statuses in zip(lines, found.values, found.statuses, strict=True):
                assert list(zip(row, statuses, strict=True)) == told[line]
    assert calls(server, "hmget") > 100
    assert calls(server, "hgetall") > 100


@pytest.mark.service("redis")
def test_few_of_many_fields_are_never_read_whole(server: Server) -> None:
    store = RedisOnlineStore(server.url, "demo")
    plan = store.plan([(WIDE, list(WIDE.schema())[:3])])
    with redis.Redis(port=server.port) as client:
        fields = {hash_field("line_wide", name): encode_value(0.5) for name in WIDE.schema()}
        client.hset(KEY((1, "a")) + b"demo", mapping={**fields, moment_field("line_wide"): encode_moment(micros(NOON))})
        for _ in range(5):
            assert plan.read([{"line": 1, "city": "a"}], NOON).values == [(0.5, 0.5, 0.5)]
    assert (calls(server, "hmget"), calls(server, "hgetall"), calls(server, "hlen")) == (5, 0, 0)


def test_a_view_asked_for_in_two_parts_and_a_feature_in_both() -> None:
    decoder = Decoder([Part(VIEW, ("wait", "trips"), fill=False), Part(VIEW, ("wait",), fill=False)])
    stored = {"wait": encode_value(0.5), "trips": encode_value(3), None: encode_moment(micros(NOON))}
    ((found, statuses),) = decoder.decode([[stored[feature] for _, feature in decoder.fields]], micros(NOON))
    assert (found, statuses) == ((0.5, 3, 0.5), (PRESENT, PRESENT, PRESENT))
