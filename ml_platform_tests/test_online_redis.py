"""Redis as an online store: what becomes of it when the server goes away, refuses or is somebody else."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from ml_platform.resources.bound import bound
from ml_platform.resources.profiles import Profile
from ml_platform.resources.projects import load_project
from ml_platform.spec import DeclarationError, StoreUnavailable
from ml_platform.stores.feast_bytes import entity_key_encoder, hash_field
from ml_platform.stores.online import OnlineStore, online_store
from ml_platform.stores.online_redis import RedisOnlineStore
from ml_platform_tests.online_world import HOUR, PASSING, opened
from ml_platform_tests.online_writer import NOON, VIEW, rows
from ml_platform_tests.redis_server import Server

pytestmark = pytest.mark.service("redis")
WANTED = [(VIEW, ("trips", "wait"))]
ASKED = [{"line": 1, "city": "a"}]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisOnlineStore]:
    with opened("redis", tmp_path) as (address, project):
        yield RedisOnlineStore(str(address), project)


def key_of(store: RedisOnlineStore, line: int) -> bytes:
    return entity_key_encoder(("line", "city"))((line, "a")) + store.project.encode()


def client_of(store: RedisOnlineStore) -> redis.Redis:
    return redis.Redis.from_url(store.__getstate__()["url"])


def test_while_redis_is_away_it_says_so_and_afterwards_goes_on(server: Server) -> None:
    store = RedisOnlineStore(f"redis://127.0.0.1:{server.port}/2", "demo")
    plan = store.plan(WANTED)
    store.publish(VIEW, rows((1, "a", NOON, 0.5, 3)), NOON)
    assert plan.read(ASKED, NOON).values == [(3, 0.5)]
    server.kill()
    says = rf"Redis at 127.0.0.1:{server.port}, database 2 cannot be reached .*ML_PLATFORM_REDIS_URL"
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=says):
            plan.read(ASKED, NOON)
    with pytest.raises(StoreUnavailable, match=says):
        store.publish(VIEW, rows((1, "a", NOON, 0.5, 3)), NOON)
    server.start()
    assert plan.read(ASKED, NOON).values == [(None, None)]  # it keeps nothing: published again from the tables
    store.publish(VIEW, rows((1, "a", NOON, 0.5, 3)), NOON)
    assert plan.read(ASKED, NOON).values == [(3, 0.5)]
    server.kill()
    server.start()
    assert plan.read(ASKED, NOON).values == [(None, None)]  # not even an error where it was back in time


def test_a_server_that_hangs_is_waited_for_two_seconds_and_no_reply_is_taken_for_another(server: Server) -> None:
    store = RedisOnlineStore(f"redis://127.0.0.1:{server.port}", "demo")
    plan = store.plan(WANTED)
    store.publish(VIEW, rows((1, "a", NOON, 0.5, 3), (2, "a", NOON, 1.5, 4)), NOON)
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreUnavailable, match="timed out"):
        plan.read(ASKED, NOON)
    server.process.send_signal(signal.SIGCONT)
    assert plan.read([{"line": 2, "city": "a"}], NOON).values == [(4, 1.5)]


def test_a_connection_that_was_cut_while_idle_is_made_anew(store: RedisOnlineStore) -> None:
    plan = store.plan(WANTED)
    store.publish(VIEW, rows((1, "a", NOON, 0.5, 3)), NOON)
    with client_of(store) as client:
        before = {each["id"] for each in client.client_list()}
        fresh = RedisOnlineStore(store.__getstate__()["url"], store.project)
        fresh_plan = fresh.plan(WANTED)
        assert fresh_plan.read(ASKED, NOON).values == [(3, 0.5)]
        mine = {each["id"] for each in client.client_list()} - before
        for each in mine:
            client.client_kill_filter(_id=each)
    assert fresh_plan.read(ASKED, NOON).values == [(3, 0.5)]
    assert plan.read(ASKED, NOON).values == [(3, 0.5)]


def test_a_forked_process_does_not_share_the_connection(store: RedisOnlineStore) -> None:
    plan = store.plan(WANTED)
    store.publish(VIEW, rows(*((line, "a", NOON, line / 7, line) for line in range(100))), NOON)

    def all_right() -> bool:
        found = [plan.read([{"line": line, "city": "a"}], NOON).values for line in range(100)]
        return found == [[(line, line / 7)] for line in range(100)]

    assert all_right()
    child = os.fork()
    if child == 0:
        os._exit(0 if all_right() else 1)
    assert all_right()
    assert os.waitpid(child, 0)[1] == 0


def test_with_a_password_and_a_wrong_one(tmp_path: Path) -> None:
    server = Server(tmp_path, "--requirepass", "s:cret/")
    server.start()
    try:
        place = f"127.0.0.1:{server.port}/3"
        for login in (":s%3Acret%2F", "default:s%3Acret%2F"):
            store = RedisOnlineStore(f"redis://{login}@{place}", "demo")
            store.publish(VIEW, rows((1, "a", NOON, 0.5, 3)), NOON)
            assert store.plan(WANTED).read(ASKED, NOON).values == [(3, 0.5)]
        with pytest.raises(StoreUnavailable, match="refuses: WRONGPASS") as wrong:
            RedisOnlineStore(f"redis://:guess@{place}", "demo").plan(WANTED).read(ASKED, NOON)
        assert "guess" not in str(wrong.value)
        with pytest.raises(StoreUnavailable, match="refuses: NOAUTH"):
            RedisOnlineStore(f"redis://{place}", "demo").publish(VIEW, rows((1, "a", NOON, 0.5, 3)), NOON)
    finally:
        server.kill()


def test_something_else_that_answers_is_no_redis() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for _ in range(2):  # the second time for the one that goes over TLS
                other, _ = listening.accept()
                with other:
                    other.recv(1000)
                    other.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        for scheme, says in (("redis", "is no Redis"), ("rediss", "cannot be reached .*SSL")):
            with pytest.raises(StoreUnavailable, match=says):
                RedisOnlineStore(f"{scheme}://{place}", "demo").plan(WANTED).read(ASKED, NOON)
        answering.join()


@pytest.mark.parametrize("url", ["http://host:1", "redis://", "redis://host/name", "host:6379"])
def test_an_address_of_another_form_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(DeclarationError, match="redis://user:password@host:port/database"):
        RedisOnlineStore(url, "demo")
    with pytest.raises(DeclarationError) as refused:
        RedisOnlineStore("http://me:hidden@host", "demo")
    assert "hidden" not in str(refused.value)


def test_a_key_of_another_kind_is_an_error_and_the_next_read_is_right(store: RedisOnlineStore) -> None:
    store.publish(VIEW, rows((1, "a", NOON, 0.5, 3), (2, "a", NOON, 1.5, 4)), NOON)
    with client_of(store) as client:
        client.delete(key_of(store, 2))
        client.set(key_of(store, 2), "mine")
    plan = store.plan(WANTED)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        plan.read([{"line": 2, "city": "a"}, *ASKED], NOON)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        store.publish(VIEW, rows((2, "a", NOON, 1.5, 4)), NOON)
    assert plan.read(ASKED, NOON).values == [(3, 0.5)]


def test_what_is_past_its_time_leaves_nothing_behind(store: RedisOnlineStore) -> None:
    many = [(line, "a", NOON, 1.0, 1) for line in range(1200)]
    assert store.publish(PASSING, rows(*many), NOON) == 1200
    store.publish(VIEW, rows((7, "a", NOON, 2.0, 2)), NOON)
    # Newer in Redis than in the index, as after Feast's own writer: it stays.
    with client_of(store) as client:
        client.hset(key_of(store, 8), "_ts:line_today", b"\x08\x80\xba\xca\xd1\x06")  # in October 2025
        assert store.publish(PASSING, rows((1, "a", NOON + 3 * HOUR, 3.0, 3)), NOON + 3 * HOUR) == 1
        index = store.index("line_today").encode()
        assert set(client.scan_iter(f"*{store.project}")) == {*(key_of(store, line) for line in (1, 7, 8)), index}
        assert client.zrange(index, 0, -1) == [key_of(store, 1)]
        assert set(client.hkeys(key_of(store, 7))) == {
            b"_ts:line_state",
            b"_stamp:line_state",
            hash_field("line_state", "trips"),
            hash_field("line_state", "wait"),
        }


def test_a_script_cache_that_was_flushed_does_not_matter(store: RedisOnlineStore) -> None:
    store.publish(VIEW, rows((1, "a", NOON, 0.5, 3)), NOON)
    with client_of(store) as client:
        client.script_flush()
    assert store.publish(VIEW, rows((1, "a", NOON + timedelta(seconds=1), 0.5, 4)), NOON) == 1


def test_the_profile_chooses_the_store(tmp_path: Path) -> None:
    variables = {
        "ML_PLATFORM_PROFILE": "production",
        "ML_PLATFORM_HOME": str(tmp_path),
        "ML_PLATFORM_LAKE": "s3://house/lake",
        "ML_PLATFORM_MLFLOW_URI": "http://127.0.0.1:5000",
        "ML_PLATFORM_MLFLOW_ARTIFACTS": "s3://house/mlflow",
        "ML_PLATFORM_POSTGRES_URL": "postgresql+psycopg2://postgres@127.0.0.1/dagster",
    }
    with pytest.raises(DeclarationError, match=r"needs ML_PLATFORM_REDIS_URL; see deploy/production\.md"):
        Profile.from_environment(variables)
    production = Profile.from_environment({**variables, "ML_PLATFORM_REDIS_URL": "redis://house:6380/1"})
    chosen = bound(production, load_project(production.project))["online"]
    assert isinstance(chosen, RedisOnlineStore)
    assert urlsplit(chosen.__getstate__()["url"]).port == 6380
    embedded = Profile.at(tmp_path)
    assert isinstance(online_store(embedded.online_address, "demo"), OnlineStore)
