"""Keys: what is kept of them, who is let in by them, and what a running service does about a change."""

import http.client
import json
import logging
import os
import re
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.cli import main
from ml_platform.resources.profiles import Profile
from ml_platform.serving.access import HEALTH, Access, is_loopback, key_file, refuse_strangers
from ml_platform.serving.client import Client
from ml_platform.serving.process import ServiceProcess, running
from ml_platform.spec import DeclarationError, HomeDamaged, ServiceError, UnknownName, WordRefused
from ml_platform.stores.api_keys import ROLES, KeyFile, Keys
from ml_platform.stores.home import Home
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import KEY
from ml_platform.stores.prediction_log import Truth
from ml_platform_tests.serving_world import NOON, ROW, World, standard

HERE = ("127.0.0.1", 5)
BODY = {"rows": [ROW], "asked_at": NOON.isoformat()}


def added(file: KeyFile, name: str, *roles: str) -> str:
    return file.add(name, roles, NOON, lambda: None)


# What is kept


def test_a_key_is_kept_as_a_salted_hash_and_known_by_its_secret_alone(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys" / "desk.json")
    assert file.read() is None
    made = [added(file, "ann", "predict"), added(file, "bob", "read", "predict")]
    text = file.path.read_text()
    for key in made:
        _, identity, secret = key.split("_", 2)
        assert identity in text
        assert secret not in text
    keys = Keys.of(file.read() or [])
    found = [keys.known(key.encode()) for key in made]
    assert [(key.name, key.roles) for key in found if key] == [("ann", ("predict",)), ("bob", ("predict", "read"))]
    salts = {key.salt for key in file.read() or ()}
    assert len(salts) == 2
    swapped = made[0].rpartition("_")[0] + "_" + made[1].split("_", 2)[2]
    assert keys.known(swapped.encode()) is None


@given(place=st.integers(0, 59), byte=st.binary(min_size=1, max_size=1), cut=st.integers(0, 60))
def test_nothing_near_a_key_is_one(known: tuple[Keys, bytes], place: int, byte: bytes, cut: int) -> None:
    keys, key = known
    changed = key[:place] + byte + key[place + 1 :]
    assert (keys.known(changed) is not None) == (changed == key)
    assert (keys.known(key[:cut]) is not None) == (key[:cut] == key)
    assert keys.known(key + byte) is None


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Keys, bytes]:
    file = KeyFile(tmp_path_factory.mktemp("keys") / "desk.json")
    key = added(file, "ann", "predict").encode()
    return Keys.of(file.read() or []), key


def test_a_file_of_another_shape_is_damaged_and_says_its_cure(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "desk.json")
    added(file, "ann", "predict")
    whole = json.loads(file.path.read_text())
    for change in ({"salt": ""}, {"digest": "00"}, {"roles": ["root"]}, {"digest": "x" * 64}, {"more": 1}):
        file.path.write_text(json.dumps({**whole, "keys": [{**whole["keys"][0], **change}]}))
        with pytest.raises(HomeDamaged, match=r"does not hold keys.*add the keys again"):
            file.read()


def test_names_and_roles_are_checked(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "desk.json")
    added(file, "ann", "predict")
    with pytest.raises(WordRefused, match="there is a key named ann already"):
        added(file, "ann", "read")
    with pytest.raises(WordRefused, match="letters, digits"):
        added(file, "ann\n", "read")
    with pytest.raises(UnknownName, match="no role named 'admin'"):
        added(file, "eve", "admin")
    assert file.revoke("eve") is None


# Who is let in


def access(profile: Profile) -> Access:
    return Access.of(profile, "desk")


def shown(key: str | None, how: str = "authorization") -> list[tuple[bytes, bytes]]:
    if key is None:
        return [(b"accept", b"*/*")]
    return [(b"accept", b"*/*"), (how.encode(), (f"Bearer {key}" if how == "authorization" else key).encode())]


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    return Profile.at(tmp_path / "home", project="tiny")


def test_each_role_opens_its_own_endpoints_and_what_nobody_named_needs_read(profile: Profile) -> None:
    file = key_file(profile, "desk")
    keys = {role: added(file, role, role) for role in ROLES}
    needs = {"/predict": "predict", "/ingest": "operate", "/label": "operate", "/model": "read", "/metrics": "read"}
    needs |= dict.fromkeys(("/", "/docs.json", "/schema.json", "/Predict", "/predict/", "//predict", "/new"), "read")
    asked = access(profile)
    for path, role in needs.items():
        for owner, key in keys.items():
            for how in ("authorization", "x-api-key"):
                found = asked.refusal(path, shown(key, how), HERE, 0.0)
                assert (found is None) == (owner == role), (path, owner)
                assert found is None or (found.status, found.reason) == (403, "this key may not ask for that")
        nobody = {asked.refusal(path, shown(wrong), HERE, 0.0) for wrong in (None, "", "mlp_0_x", keys["read"][:-1])}
        assert len(nobody) == 1  # a missing key, a wrong one and a guess are told the same
        (refusal,) = nobody
        assert refusal is not None
        assert refusal.status == 401
    assert all(asked.refusal(path, [], HERE, 0.0) is None for path in HEALTH)


def test_without_keys_only_this_machine_is_answered_unless_it_is_said(profile: Profile) -> None:
    asked = access(profile)
    assert asked.refusal("/predict", [], HERE, 0.0) is None
    assert asked.refusal("/predict", [], None, 0.0) is None  # a socket in the file system
    stranger = asked.refusal("/predict", [], ("10.0.0.7", 5), 0.0)
    assert stranger is not None
    assert stranger.status == 403
    assert access(replace(profile, keys="open")).refusal("/predict", [], ("10.0.0.7", 5), 0.0) is None
    demanded = access(replace(profile, keys="required")).refusal("/predict", [], HERE, 0.0)
    assert demanded is not None
    assert demanded.status == 401
    with pytest.raises(ServiceError, match=r"does not listen on 0\.0\.0\.0.*keys add desk.*--open"):
        refuse_strangers(profile, "desk", "0.0.0.0")
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "::ffff:127.0.0.1"):
        assert is_loopback(host)
        refuse_strangers(profile, "desk", host)
    refuse_strangers(replace(profile, keys="open"), "desk", "0.0.0.0")
    added(key_file(profile, "desk"), "ann", "predict")
    refuse_strangers(profile, "desk", "0.0.0.0")
    with pytest.raises(DeclarationError, match="ML_PLATFORM_KEYS is 'yes'"):
        Profile.from_environment({"ML_PLATFORM_KEYS": "yes"})


def test_a_change_counts_within_half_a_second_and_taking_the_file_away_opens_nothing(
    profile: Profile, caplog: pytest.LogCaptureFixture
) -> None:
    asked, file = access(profile), key_file(profile, "desk")

    def let_in(key: str | None, now: float) -> bool:
        return asked.refusal("/predict", shown(key), HERE, now) is None

    assert let_in(None, 0.0)
    key = added(file, "ann", "predict")
    assert let_in(None, 0.4)  # not looked yet
    assert not let_in(None, 0.6)
    assert let_in(key, 0.6)
    other = added(file, "bob", "predict")
    file.revoke("ann")
    assert not let_in(key, 1.2)
    assert let_in(other, 1.2)
    text = file.path.read_text()
    file.path.write_text(text[:-9])
    assert not let_in(other, 1.8)
    assert not let_in(None, 1.8)
    file.path.write_text(text)
    assert let_in(other, 2.4)
    file.path.unlink()
    assert not let_in(None, 3.0)
    assert not let_in(other, 3.0)
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 2
    last = added(file, "ann", "predict")
    file.revoke("ann")
    assert not let_in(None, 3.6)  # all revoked: nobody, not everybody
    assert not let_in(last, 3.6)


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=80)), max_size=6))
def test_no_headers_whatever_let_anybody_in(known: tuple[Keys, bytes], headers: list[tuple[bytes, bytes]]) -> None:
    asked = Access(KeyFile(Path("nowhere.json")), "required", known[0], _look_at=9.0)
    named = [(name, value) for name, value in [*headers, *((b"x-api-key", value) for _, value in headers)]]
    found = asked.refusal("/predict", named, HERE, 0.0)
    assert found is not None
    assert found.status == 401


# The commands


def said(home: Path, *words: str) -> Result:
    env = {"ML_PLATFORM_HOME": str(home), "ML_PLATFORM_PROJECT": "tiny"}
    return CliRunner().invoke(main, [*words], env=env)


def test_the_commands_and_what_the_ledger_says_of_them(tiny: World, tmp_path: Path) -> None:
    home = tmp_path / "other"
    assert "has no keys" in said(home, "keys", "list", "idle").output
    done = said(home, "keys", "add", "idle", "--role", "read", "--role", "predict", "--name", "ann", "--by", "bo")
    key = done.stdout.strip()
    assert re.fullmatch(r"mlp_[0-9a-f]{12}_[\w-]{43}", key)
    assert re.fullmatch(r"ann: predict, read; added .* UTC\n", said(home, "keys", "list", "idle").output)
    assert said(home, "keys", "add", "idle", "--role", "read", "--name", "ann").exit_code == 1
    assert said(home, "keys", "add", "idle", "--role", "root", "--name", "eve").exit_code == 2
    assert "no service named" in said(home, "keys", "add", "odle", "--role", "read", "--name", "eve").output
    assert "line 2: the key of ann for service idle is revoked" in said(home, "keys", "revoke", "idle", "ann").output
    assert said(home, "keys", "revoke", "idle", "ann").exit_code == 1
    assert "all keys of service idle were revoked" in said(home, "keys", "list", "idle").output
    assert said(home, "keys", "add", "idle", "--role", "read", "--name", "ann").exit_code == 0
    ledger = Ledger(home / "ledger.db")
    lines = ledger.entries(KEY, "idle")
    assert [(line.body["action"], line.body["name"]) for line in lines] == [
        ("added", "ann"),
        ("revoked", "ann"),
        ("added", "ann"),
    ]
    assert ledger.verify().state == "pass"
    content = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert key.split("_", 2)[2].encode() not in content
    Home(home).check("tiny")


# A running service


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from standard(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def served(tiny: World) -> Iterator[ServiceProcess]:
    with running(tiny.profile, "desk") as process:
        yield process


def ask(port: int, method: str, path: str, key: str | None = None, body: Any = None, how: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        headers = {"Content-Type": how or "application/json"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status != 401 or response.getheader("www-authenticate") == "Bearer"
        return response.status, response.read().decode()
    finally:
        connection.close()


def soon(true: Any, seconds: float = 2.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def test_the_fast_way_and_bentomls_ask_for_the_same_key_and_a_revoked_one_goes_within_two_seconds(
    tiny: World, served: ServiceProcess
) -> None:
    port, file = served.port, key_file(tiny.profile, "desk")
    assert ask(port, "POST", "/predict", body=BODY)[0] == 200  # none yet
    keys = {role: added(file, role, role) for role in ROLES}
    soon(lambda: ask(port, "POST", "/predict", body=BODY)[0] == 401)
    for how in ("application/json", "text/json"):  # before BentoML's application, and by it
        assert ask(port, "POST", "/predict", keys["predict"], BODY, how)[0] == 200
        assert ask(port, "POST", "/predict", keys["read"], BODY, how)[0] == 403
        assert ask(port, "POST", "/predict", None, BODY, how)[0] == 401
    open_to = {
        path: {role for role, key in keys.items() if ask(port, method, path, key, body)[0] not in (401, 403)}
        for method, path, body in (
            ("POST", "/model", {}),
            ("GET", "/metrics", None),
            ("GET", "/", None),
            ("GET", "/docs.json", None),
            ("GET", "/schema.json", None),
            ("POST", "/label", {"labels": []}),
            ("POST", "/ingest", {"events": {}}),
            ("GET", "/predict", None),
        )
    }
    assert open_to == {
        **{path: {"read"} for path in ("/model", "/metrics", "/", "/docs.json", "/schema.json")},
        **{path: {"operate"} for path in ("/label", "/ingest")},
        "/predict": {"predict"},
    }
    assert [ask(port, "GET", path)[0] for path in sorted(HEALTH)] == [200, 200, 200]
    client = Client(served.url, key=keys["predict"])
    assert client.predict([{**ROW, "trip": "keyed"}], NOON).model_version == "1"
    with pytest.raises(ServiceError, match="answered 403: this key may not ask for that"):
        client.label([Truth(prediction_id="keyed", value=1, known_at=NOON)])
    with pytest.raises(ServiceError, match="answered 401: a key that is known here is needed"):
        Client(served.url).predict([ROW], NOON)
    file.revoke("predict")
    soon(lambda: ask(port, "POST", "/predict", keys["predict"], BODY)[0] == 401)
    text = served.log.read_text()
    assert "key read has not the role predict" in text
    for key in keys.values():
        assert key.split("_", 2)[2] not in text


ROUTES = """
import json, sys
from ml_platform.resources.profiles import Profile
from ml_platform.serving.service import prediction_service
app = prediction_service(Profile.from_environment(), "desk").to_asgi().app
methods = lambda each: sorted(getattr(each, "methods", None) or [])
print(json.dumps([[type(each).__name__, each.path, methods(each)] for each in app.routes]))
"""


def test_no_route_decides_approves_or_operates(tiny: World) -> None:
    """Rollouts, approvals and keys are commands with a ledger; these are all routes that there are over HTTP."""
    own = {"ML_PLATFORM_HOME": str(tiny.profile.home), "ML_PLATFORM_PROJECT": "tiny"}
    own |= {"BENTOML_HOME": str(tiny.profile.home / "bentoml" / "routes")}
    done = subprocess.run(
        [sys.executable, "-c", ROUTES], env={**os.environ, **own}, capture_output=True, text=True, check=True
    )
    reads = ["GET", "HEAD"]
    assert sorted(json.loads(done.stdout.splitlines()[-1])) == [
        ["Mount", "/static_content", []],
        ["Route", "/", reads],
        ["Route", "/docs.json", reads],
        ["Route", "/healthz", reads],
        ["Route", "/ingest", ["POST"]],
        ["Route", "/label", ["POST"]],
        ["Route", "/livez", reads],
        ["Route", "/metrics", reads],
        ["Route", "/model", ["POST"]],
        ["Route", "/predict", ["POST"]],
        ["Route", "/readyz", reads],
        ["Route", "/schema.json", reads],
    ]


def test_checking_a_key_costs_a_few_microseconds(profile: Profile) -> None:
    file = key_file(profile, "desk")
    keys = [added(file, f"caller-{n}", "predict") for n in range(50)]
    asked, headers = access(profile), shown(keys[25])
    asked.refusal("/predict", headers, HERE, 0.0)
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(1000):
            asked.refusal("/predict", headers, HERE, 0.1)
        best = min(best, (time.perf_counter() - began) / 1000)
    assert best < 10e-6  # about 2 where nothing else runs


def test_letters_of_a_key_need_no_quoting(known: tuple[Keys, bytes]) -> None:
    assert set(known[1].decode()) <= {*string.ascii_letters, *string.digits, "_", "-"}
