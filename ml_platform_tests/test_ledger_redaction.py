"""Fields that are taken out of lines of the ledger: the chain stays whole, and that excuses nothing else."""

import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.cli import main
from ml_platform.stores.clock import Clock
from ml_platform.stores.ledger import Ledger, _add, _last
from ml_platform.stores.ledger_body import SALTS, TAKEN_OUT, digested, opened, sealed, taken_out, without
from ml_platform.stores.ledger_chain import GENESIS, Head, Line, behind, breaks
from ml_platform.stores.ledger_kinds import OF_A_MODEL, REDACTION
from ml_platform.stores.texts import Words
from ml_platform_tests.forget_world import places_of
from ml_platform_tests.registry_world import MODEL, Registry
from ml_platform_tests.test_home import python

NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
TRIP, OTHER = "20240308-40", "20240308-41"


def words(value: str = TRIP) -> Words:
    return Words(entity="trip", text=value, ids=frozenset(), names=frozenset(), token="forgotten-0123456789ab")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
BODIES = st.dictionaries(st.text(max_size=6).filter(lambda name: name != SALTS), VALUES, max_size=5)


@given(BODIES, st.data())
def test_a_body_keeps_its_seals_and_its_other_fields_whatever_is_taken_out(
    body: dict[str, Any], data: st.DataObject
) -> None:
    text = sealed(body)
    assert opened(text) == body
    names = data.draw(st.sets(st.sampled_from(sorted(body)))) if body else set()
    left = without(text, names)
    assert digested(left) == digested(text)
    assert taken_out(left) == tuple(sorted(names))
    assert opened(left) == {**body, **dict.fromkeys(names, TAKEN_OUT)}
    for name in names:
        assert json.loads(text)[SALTS][name] not in left  # with its salt the value could be found by trying


def test_a_salt_is_new_each_time_and_its_field_is_not_for_others() -> None:
    assert digested(sealed({"reason": "r"})) != digested(sealed({"reason": "r"}))
    with pytest.raises(ValueError, match="may be called 'salts'"):
        sealed({SALTS: {}})
    with pytest.raises(ValueError, match=r"the fields \['by'\] cannot be taken out"):
        without(sealed({"reason": "r"}), ["by"])


# Whole ledgers and what may be done to them


@dataclass(frozen=True)
class Chain:
    """Lines as they stand, and the note of the last one."""

    lines: list[Line]

    @property
    def head(self) -> Head:
        return Head(self.lines[-1].number, self.lines[-1].digest) if self.lines else Head(0, GENESIS)

    def add(self, kind: str, body: dict[str, Any]) -> None:
        self.lines.append(behind(self.head, NOON.isoformat(), kind, "late", str(len(self.lines)), sealed(body)))

    def take_out(self, number: int, names: Sequence[str]) -> None:
        """As the ledger does it."""
        line = self.lines[number - 1]
        self.lines[number - 1] = line._replace(body=without(line.body, names))
        self.add(REDACTION, {"line": number, "digest": line.digest, "fields": list(names), "entity": "trip"})


NAMES = ["by", "reason", "version"]


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Some lines, some of them redacted, some of these twice, with others written between."""
    chain = Chain([])
    for n in range(draw(st.integers(1, 7))):
        chain.add("approval", {"by": "ann", "reason": f"trip {n}", "version": str(n)})
        if draw(st.booleans()):
            line = chain.lines[draw(st.integers(0, n)) % len(chain.lines)]
            left = sorted(set(NAMES) - set(taken_out(line.body)))
            if line.kind != REDACTION and left:
                chain.take_out(line.number, draw(st.lists(st.sampled_from(left), min_size=1, unique=True)))
    return chain


def named(lines: Sequence[Line], head: Head) -> list[tuple[str, int]]:
    return [(found.what, found.number) for found in breaks(lines, head)]


@given(chains())
def test_redacted_lines_are_whole(chain: Chain) -> None:
    assert named(chain.lines, chain.head) == []


def _set(line: Line, name: str, value: Any) -> Line:
    body = json.loads(line.body)
    return line._replace(body=json.dumps({**body, name: value}, sort_keys=True))


def _salt(line: Line, name: str, value: Any) -> Line:
    return _set(line, SALTS, {**json.loads(line.body)[SALTS], name: value})


FORGERIES: dict[str, Callable[[Line], Line]] = {
    "another value": lambda line: _set(line, "reason", "it was somebody else"),
    "a redacted sentence for a value": lambda line: _set(line, "by", TAKEN_OUT),
    "one field more": lambda line: _set(line, "more", "words"),
    "one field more, with a salt": lambda line: _salt(_set(line, "more", "words"), "more", "00"),
    "another salt": lambda line: _salt(line, "version", "00"),
    "no salts": lambda line: line._replace(body=json.dumps(opened(line.body), sort_keys=True)),
    "the seals for a body": lambda line: line._replace(body=json.dumps(digested(line.body))),
    "written otherwise": lambda line: line._replace(body=line.body.replace(": ", ":")),
    "a field twice": lambda line: line._replace(body='{"reason": "hidden", ' + line.body[1:]),
    "no JSON": lambda line: line._replace(body="..."),
    "nothing": lambda line: line._replace(body="{}"),
}


@given(chains(), st.integers(0, 20), st.sampled_from(sorted(FORGERIES)))
def test_a_body_that_was_changed_otherwise_is_named_also_of_redacted_lines_and_of_redactions(
    chain: Chain, place: int, how: str
) -> None:
    lines, at = list(chain.lines), place % len(chain.lines)
    lines[at] = FORGERIES[how](lines[at])
    found = named(lines, chain.head)
    assert ("changed", at + 1) in found


@given(chains(), st.data())
def test_a_field_that_is_gone_without_a_redaction_is_named(chain: Chain, data: st.DataObject) -> None:
    lines = list(chain.lines)
    at = data.draw(st.integers(0, len(lines) - 1))
    left = sorted(json.loads(lines[at].body).keys() - {SALTS})
    if not left:
        return
    name = data.draw(st.sampled_from(left))
    lines[at] = lines[at]._replace(body=without(lines[at].body, [name]))
    assert ("taken out", at + 1) in named(lines, chain.head)


@given(chains(), st.sampled_from(["line", "digest", "fields", "kind", "before"]))
def test_a_redaction_that_was_not_written_for_it_excuses_nothing(chain: Chain, what: str) -> None:
    """Behind the last line stands one in proper form that says something else than what was done."""
    number = next((line.number for line in chain.lines if line.kind != REDACTION and not taken_out(line.body)), None)
    if number is None:
        return
    line = chain.lines[number - 1]
    body: dict[str, Any] = {"line": number, "digest": line.digest, "fields": ["reason"], "entity": "trip"}
    body |= {"line": {"line": number + 1}, "digest": {"digest": "f" * 64}, "fields": {"fields": ["by"]}}.get(what, {})
    forged = Chain(list(chain.lines))
    forged.lines[number - 1] = line._replace(body=without(line.body, ["reason"]))
    forged.add("approval" if what == "kind" else REDACTION, body)
    if what == "before":
        forged.lines[-1] = forged.lines[-1]._replace(before="f" * 64)
    found = named(forged.lines, forged.head)
    assert found != []
    assert what == "before" or ("taken out", number) in found


@given(chains(), st.data())
def test_redactions_are_lines_like_all_others(chain: Chain, data: st.DataObject) -> None:
    """Cut off, removed or moved they are missed; what they took out is missed, too."""
    places = [place for place, line in enumerate(chain.lines) if line.kind == REDACTION]
    if not places:
        return
    at = data.draw(st.sampled_from(places))
    redacted = json.loads(chain.lines[at].body)["line"]
    cut, out = chain.lines[:at], [*chain.lines[:at], *chain.lines[at + 1 :]]
    assert ("cut off", at + 1) in named(cut, chain.head)
    for lines in (cut, out):
        assert ("taken out", redacted) in named(lines, chain.head)
        assert len(named(lines, chain.head)) >= 2


def test_what_was_taken_out_and_stands_again_is_named() -> None:
    chain = Chain([])
    chain.add("approval", {"by": "ann", "reason": "trip"})
    before = chain.lines[0]
    chain.take_out(1, ["reason"])
    (found,) = breaks([before, *chain.lines[1:]], chain.head)
    assert found.sentence == "line 1 says 'reason' again, which line 2 says was taken out"


# The file


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three lines: about a trip, about another one, about both."""
    made = Ledger(tmp_path / "ledger.db")
    for n, text in enumerate((f"trip {TRIP} looked fine", f"not {OTHER}", f"{OTHER} and {TRIP}"), 1):
        made.write("approval", "late", f"v{n}", NOON + timedelta(hours=n), {"version": str(n), "reason": text})
    return made


def test_a_line_is_redacted_once_and_its_bytes_are_gone(ledger: Ledger) -> None:
    assert ledger.naming(words()) == {1: ["reason"], 3: ["reason"]}
    assert ledger.redact(words(), "trip", "ab" * 16, NOON) == 2
    assert ledger.redact(words(), "trip", "ab" * 16, NOON) == 0
    assert places_of(ledger.path.parent, TRIP) == []
    told = [(line.body["version"], line.body["reason"], line.redacted) for line in ledger.entries("approval", "late")]
    assert told == [
        ("1", TAKEN_OUT, ("reason",)),
        ("2", f"not {OTHER}", ()),
        ("3", TAKEN_OUT, ("reason",)),
    ]
    assert ledger.verify().passed
    assert [dict(line.body) | {"digest": ""} for line in ledger.entries(REDACTION, "late")] == [
        {"line": n, "digest": "", "fields": ["reason"], "entity": "trip", "forgotten": "ab" * 16} for n in (1, 3)
    ]
    assert ledger.redact(words(OTHER), "trip", "cd" * 16, NOON) == 1  # of the third line nothing is left to take out
    assert ledger.write("approval", "late", "v1", NOON, {"version": "9"}).body["version"] == "1"
    assert ledger.verify().measures["lines"] == 6
    with closing(sqlite3.connect(ledger.path)) as db, pytest.raises(sqlite3.IntegrityError, match="never changed"):
        db.execute("UPDATE ledger SET body = '{}' WHERE number = 1")


def test_lines_from_before_the_seals_are_read_verified_and_left_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.write("approval", "late", "v1", NOON, {"reason": "first"})
    with closing(sqlite3.connect(ledger.path)) as db, db:
        (digest,) = db.execute("SELECT digest FROM ledger").fetchone()
        body = json.dumps({"reason": f"trip {TRIP}", "version": "2"})
        line = behind(Head(1, digest), NOON.isoformat(), "approval", "late", "v2", body)
        db.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?)", line[:8])
    ledger.write("approval", "late", "v3", NOON, {"reason": "third"})
    assert ledger.verify().passed
    assert [line.body["reason"] for line in ledger.entries("approval", "late")] == ["first", f"trip {TRIP}", "third"]
    assert ledger.redact(words(), "trip", "ab" * 16, NOON) == 0
    assert ledger.verify().passed


def test_a_ledger_that_was_tampered_with_is_redacted_and_still_found_out(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute("DROP TRIGGER keeps_lines")
        db.execute("DELETE FROM ledger WHERE number = 3")
    assert ledger.redact(words(), "trip", "ab" * 16, NOON) == 1
    assert places_of(ledger.path.parent, TRIP) == []
    assert ledger.verify().state == "fail"


REDACT = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from ml_platform.stores.ledger import Ledger
from ml_platform_tests.test_ledger_redaction import words
ledger = Ledger(Path(sys.argv[1]))
print("ready", flush=True); sys.stdin.readline()
ledger.redact(words(), "trip", "ab" * 16, datetime(2024, 3, 10, tzinfo=UTC))
print("done", flush=True)
"""


def test_killed_anywhere_all_of_it_is_done_or_nothing(tmp_path: Path) -> None:
    ledger, draw, kills = Ledger(tmp_path / "ledger.db"), random.Random(3), 0
    lines, at = 300, NOON.isoformat()
    with ledger._adding(at) as db:
        for n in range(lines):
            _add(db, _last(db), at, "approval", "late", f"v{n}", sealed({"reason": f"trip {TRIP} looked fine"}))
    for _ in range(3):
        process = python(REDACT, ledger.path)
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(draw.uniform(0, 0.04))
        os.kill(process.pid, signal.SIGKILL)
        kills += "done" not in process.communicate(timeout=50)[0]
        assert ledger.verify().passed
        assert len(ledger.naming(words())) in (0, lines)
    assert kills > 0
    ledger.redact(words(), "trip", "ab" * 16, NOON)
    assert ledger.verify().passed
    assert len(ledger.entries(REDACTION, "late")) == lines
    assert places_of(tmp_path, TRIP) == []


# From the shell


def test_a_reason_that_names_what_is_forgotten_goes_and_the_history_says_so(tmp_path: Path) -> None:
    registry = Registry.fresh(tmp_path / "home")
    registry.trained_and_judged()
    registry.deploy()
    registry = registry.later()
    registry.trained_and_judged("fail")
    Clock(registry.folder / "clock.json").set(registry.later().at)
    env = {"ML_PLATFORM_HOME": str(registry.folder), "ML_PLATFORM_PROJECT": "ml_platform_tests.trips"}

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments, env=env)
        assert done.exit_code == 0, done.output
        return done.output

    said("approve", MODEL, "2", "--by", TRIP, "--reason", f"trip {TRIP} looked fine", "--override")
    assert said("history", MODEL).count(TRIP) == 4  # by whom and why, and the promotion tells both again
    assert "ledger.db: 3 lines naming it" in said("forget", f"trip={TRIP}")
    before = registry.ledger.about(MODEL, OF_A_MODEL)
    said("forget", f"trip={TRIP}", "--yes")
    assert places_of(registry.folder, TRIP) == []
    after = registry.ledger.about(MODEL, OF_A_MODEL)
    assert [(line.number, line.kind) for line in after[: len(before)]] == [(line.number, line.kind) for line in before]
    history = said("history", MODEL)
    assert f"version 2 was approved by {TAKEN_OUT} against the gate: {TAKEN_OUT}" in history
    assert "a trip was forgotten, which by and reason of line 7 named: taken out of it" in history
    lines = json.loads(said("history", MODEL, "--json"))["lines"]
    assert lines[6]["redacted"] == ["by", "reason"]
    assert registry.ledger.verify().passed
    assert "champion is 2" in said("approve", MODEL, "2", "--by", "ann", "--reason", "again")
