"""The state folder, its clock and its ledger: whole after any end, one writer at a time, several processes."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.spec import HomeDamaged, HomeLocked, StateError
from ml_platform.stores.clock import Clock
from ml_platform.stores.home import Home, read_json, write_json
from ml_platform.stores.ledger import Ledger

NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# The folder


def test_a_new_folder_is_marked_and_known_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    home.prepare("shop")
    home.prepare("shop")
    assert [entry.name for entry in home.path.iterdir()] == ["ml_platform.json"]


@pytest.mark.parametrize("left", ["lock", "ml_platform.json.4711-1.draft", "feast_registry.db"])
def test_what_an_interrupted_or_earlier_start_left_is_no_stranger(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("{")
    Home(tmp_path).prepare("shop")
    assert read_json(tmp_path / "ml_platform.json")["project"] == "shop"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(HomeDamaged, match=r"holds thesis\.tex but no ml_platform\.json; set ML_PLATFORM_HOME"):
        Home(tmp_path).prepare("shop")
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ('{"format": 1, "project": "other"}', "holds the state of project 'other', not of 'shop'"),
        ('{"format": 2, "project": "shop"}', "has layout 2, this platform reads 1"),
        ('{"format": 1, "pro', "is damaged"),
        ("[]", r"is damaged \(no object\)"),
        ("", "is damaged"),
    ],
)
def test_a_mark_that_does_not_fit_is_refused(tmp_path: Path, mark: str, says: str) -> None:
    (tmp_path / "ml_platform.json").write_text(mark)
    with pytest.raises(HomeDamaged, match=says):
        Home(tmp_path).prepare("shop")


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(HomeDamaged, match="taken is a file; set ML_PLATFORM_HOME"):
        Home(tmp_path / "taken").prepare("shop")
    with pytest.raises(StateError, match=r"cannot make the state folder .*below .*set ML_PLATFORM_HOME"):
        Home(tmp_path / "taken" / "below").prepare("shop")
    with (
        pytest.raises(StateError, match="cannot make the state folder"),
        Home(tmp_path / "taken" / "below").locked("x"),
    ):
        pass


PREPARE = """
import sys
from pathlib import Path
from ml_platform.stores.home import Home
print("ready", flush=True); sys.stdin.readline()
for n in range(15): Home(Path(sys.argv[1]) / str(n)).prepare("shop")
"""


def test_two_processes_may_prepare_the_same_folder_at_once(tmp_path: Path) -> None:
    started = [python(PREPARE, tmp_path) for _ in range(3)]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    ended = [process.communicate("\n", timeout=60) for process in started]
    assert [(process.returncode, said) for process, (_, said) in zip(started, ended, strict=True)] == [(0, "")] * 3


# The lock

HOLD = """
import sys
from pathlib import Path
from ml_platform.stores.home import Home
with Home(Path(sys.argv[1])).locked("run"):
    print("held", flush=True); sys.stdin.readline()
"""


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    holder = python(HOLD, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(HomeLocked, match=rf"in use by `ml-platform run` \(process {holder.pid}\); wait for it"),
        Home(tmp_path).locked("ui"),
    ):
        pass
    holder.kill()
    holder.communicate(timeout=60)
    with Home(tmp_path).locked("ui"):
        assert (tmp_path / "lock").read_text() == f"`ml-platform ui` (process {os.getpid()})"


USE = """
import os, sys
from pathlib import Path
from ml_platform.stores.home import Home
home, beyond = Home(Path(sys.argv[1])), sys.argv[2] == "exec"
with home.used("serve desk", beyond_exec=beyond):
    print("used", flush=True)
    if beyond:
        os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.readline()"])
    sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["stay", "exec"])
def test_nobody_is_alone_while_others_use_the_folder_and_they_are_named(tmp_path: Path, how: str) -> None:
    home = Home(tmp_path)
    users = [python(USE, tmp_path, how) for _ in range(2)]
    for user in users:
        assert user.stdout is not None
        assert user.stdout.readline() == "used\n"
    time.sleep(0.3 if how == "exec" else 0)
    named = " and ".join(rf"`ml-platform serve desk` \(process {n}\)" for n in sorted(user.pid for user in users))
    with pytest.raises(HomeLocked, match=f"in use by {named}; end it first, and try again"), home.alone("forget"):
        pass
    with home.locked("run"), home.used("serve"):
        pass  # they may be beside a writer
    for user in users:
        user.kill()
        user.communicate(timeout=60)
    with home.alone("forget"):
        late = python(USE, tmp_path, "stay")
        _, said = late.communicate(timeout=60)
        assert f"HomeLocked: {tmp_path} is in use by `ml-platform forget` (process {os.getpid()}); wait for it" in said
        with pytest.raises(HomeLocked, match="in use by `ml-platform forget`"), home.locked("run"):
            pass
    with home.used("serve"):
        assert {note.name for note in (tmp_path / "users").iterdir()} == {"lock", str(os.getpid())}


def test_what_is_half_forgotten_is_not_worked_with(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare("shop")
    begun = tmp_path / "forgotten" / "begun-0a1b.json"
    write_json(begun, {"entity": "shopper"})
    with pytest.raises(StateError, match=r"a shopper in .* was cut off.*`ml-platform forget shopper=<the same value>"):
        home.prepare("shop")
    begun.unlink()
    home.prepare("shop")


FORK = """
import os, sys, time
from pathlib import Path
from ml_platform.stores.home import Home
home = Home(Path(sys.argv[1]))
with home.locked("run"):
    child = os.fork()
    if child == 0:
        time.sleep(60); os._exit(0)
try:
    with home.locked("run"): print("free")
finally:
    os.kill(child, 9); os.waitpid(child, 0)
"""


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    said, errors = python(FORK, tmp_path).communicate(timeout=60)
    assert said == "free\n", errors


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Home(tmp_path).locked("run"):
        raise ZeroDivisionError
    with Home(tmp_path).locked("run"):
        pass


# Small files


def test_what_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["clock.json"]


def test_every_reader_sees_one_whole_file_while_several_write(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"who": 0, "text": ""})

    def write(who: int) -> None:
        for n in range(40):
            write_json(path, {"who": who, "text": str(who) * (1 + 997 * n % 30000)})

    writers = [threading.Thread(target=write, args=(who,)) for who in range(1, 4)]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        found = read_json(path)
        assert set(found["text"]) <= {str(found["who"])}
        seen += 1
    assert seen
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


# The clock


def test_the_clock_is_live_until_it_is_set(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json")
    assert clock.replayed() is None
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    assert not any(tmp_path.iterdir())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 4_000_000_000))
def test_the_clock_keeps_the_moment_in_utc(tmp_path_factory: pytest.TempPathFactory, second: int) -> None:
    moment = datetime.fromtimestamp(second, ZoneInfo("America/New_York"))
    clock = Clock(tmp_path_factory.getbasetemp() / "clock.json")
    clock.set(moment)
    assert clock.now() == moment
    assert clock.now().tzinfo is UTC


def test_the_clock_needs_a_timezone(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json")
    clock.set(NOON)
    with pytest.raises(ValueError, match="with its timezone"):
        clock.set(NOON.replace(tzinfo=None))
    assert clock.now() == NOON


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"now": 5}', '{"now": null}', '{"now": "soon"}', '{"now": "2024-03-10T12:00:00"}', "\0"],
)
def test_a_damaged_clock_is_not_taken_for_the_present(tmp_path: Path, content: str) -> None:
    (tmp_path / "clock.json").write_text(content)
    with pytest.raises(HomeDamaged, match=r"clock\.json .*delete the state folder"):
        Clock(tmp_path / "clock.json").now()


# The ledger


def test_a_line_is_written_once_and_the_first_stands(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    first = ledger.write("decision", "delay", "2024-03-10", NOON, {"wanted": 1})
    again = ledger.write("decision", "delay", "2024-03-10", NOON + timedelta(hours=1), {"wanted": 2})
    assert again == first
    other = ledger.write("decision", "other", "2024-03-10", NOON, {"wanted": 7})
    second = ledger.write("decision", "delay", "2024-03-09", NOON, {"wanted": 3})
    assert [entry.number for entry in (first, other, second)] == [1, 2, 3]
    assert ledger.entries("decision", "delay") == [first, second]
    assert ledger.last("decision", "delay") == second
    assert ledger.last("decision", "nobody") is None
    assert first.at == NOON


def test_looking_into_a_ledger_makes_none(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "home" / "ledger.db")
    assert ledger.entries("decision", "delay") == []
    assert ledger.last("decision", "delay") is None
    assert not any(tmp_path.iterdir())


def test_what_is_no_line_is_refused_aloud(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError):
        ledger.write("decision", "delay", None, NOON, {})  # type: ignore[arg-type]
    assert ledger.entries("decision", "delay") == []


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be taken for one" * 30, b"SQLite format 3\0" + b"\1" * 4080]
)
def test_a_damaged_ledger_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    for attempt in (
        lambda: Ledger(path).entries("decision", "delay"),
        lambda: Ledger(path).write("decision", "delay", "k", NOON, {}),
    ):
        with pytest.raises(HomeDamaged, match=r"ledger\.db is damaged .*delete the state folder"):
            attempt()
    assert path.read_bytes() == content


WRITE = """
import json, sys
from datetime import datetime, UTC
from pathlib import Path
from ml_platform.stores.ledger import Ledger
ledger, me = Ledger(Path(sys.argv[1])), sys.argv[2]
at = datetime(2024, 3, 10, tzinfo=UTC)
print("ready", flush=True); sys.stdin.readline()
for n in range(12):
    ledger.write("own", "x", f"{me}-{n}", at, {"by": me})
    print(json.dumps([n, ledger.write("shared", "x", str(n), at, {"by": me}).body["by"]]))
"""


def test_several_processes_write_one_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    started = [python(WRITE, path, who) for who in "abcd"]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:  # all begin before the first is waited for; none finds the table made
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=100) for process in started]
    assert [(process.returncode, said) for process, (_, said) in zip(started, ended, strict=True)] == [(0, "")] * 4
    ledger = Ledger(path)
    own, shared = ledger.entries("own", "x"), ledger.entries("shared", "x")
    assert {entry.key for entry in own} == {f"{who}-{n}" for who in "abcd" for n in range(12)}
    assert sorted(entry.number for entry in [*own, *shared]) == list(range(1, 61))
    stands = {int(entry.key): entry.body["by"] for entry in shared}
    for out, _ in ended:
        assert dict(json.loads(line) for line in out.splitlines()) == stands


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("123"), st.integers(0, 9)), max_size=12
    )
)
def test_the_ledger_is_the_first_of_each_key(tmp_path_factory: pytest.TempPathFactory, lines: list) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.db")
    expected: dict[tuple[str, str, str], int] = {}
    for kind, subject, key, value in lines:
        found = ledger.write(kind, subject, key, NOON, {"value": value})
        assert found.body == {"value": expected.setdefault((kind, subject, key), value)}
    for kind in "ab":
        for subject in "xy":
            found = {entry.key: entry.body["value"] for entry in ledger.entries(kind, subject)}
            assert found == {k: v for (a, b, k), v in expected.items() if (a, b) == (kind, subject)}
