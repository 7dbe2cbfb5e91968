"""The ledger's file: nobody changes a line unnoticed, however many write and whoever is killed."""

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.replay.driver import words_of
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import CHAIN
from ml_platform_tests.test_home import python

NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """With five lines."""
    made = Ledger(tmp_path / "ledger.db")
    for n in range(1, 6):
        made.write("gate", "late", f"v{n}", NOON + timedelta(days=n), {"version": n, "reason": "it beats the champion"})
    return made


def changed(ledger: Ledger, *statements: str) -> None:
    """By somebody with a SQLite shell who takes the guards away."""
    with closing(sqlite3.connect(ledger.path)) as db, db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            db.execute(statement)


def test_what_was_written_is_whole(ledger: Ledger) -> None:
    found = ledger.verify()
    assert found.state == "pass"
    assert found.measures["lines"] == 5
    assert found.reason.startswith("all 5 lines follow one from another; the last is 5, ")


def test_of_nothing_nothing_is_known(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "home" / "ledger.db")
    assert ledger.verify().state == "unknown"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET body = '{}' WHERE number = 2",
        "UPDATE OR REPLACE ledger SET number = 3 WHERE number = 2",
        "DELETE FROM ledger WHERE number = 5",
        "DELETE FROM ledger",
        "INSERT INTO ledger SELECT 6, at, kind, subject, 'v6', body, before, digest FROM ledger WHERE number = 5",
        "INSERT INTO ledger SELECT 9, at, kind, subject, 'v6', body, digest, 'x' FROM ledger WHERE number = 5",
        "INSERT INTO ledger SELECT NULL, at, kind, subject, 'v6', body, digest, 'x' FROM ledger WHERE number = 5",
        "REPLACE INTO ledger SELECT 6, at, kind, subject, key, '{}', digest, 'x' FROM ledger WHERE number = 5",
        "REPLACE INTO ledger SELECT 5, at, kind, subject, 'v6', '{}', before, 'x' FROM ledger WHERE number = 5",
    ],
)
def test_the_table_itself_refuses(ledger: Ledger, statement: str) -> None:
    before = ledger.entries("gate", "late")
    with (
        closing(sqlite3.connect(ledger.path)) as db,
        pytest.raises(sqlite3.IntegrityError, match=r"a line is (never|new)"),
    ):
        db.execute(statement)
    assert ledger.entries("gate", "late") == before
    assert ledger.verify().passed


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["UPDATE ledger SET body = replace(body, 'beats', 'bores') WHERE number = 2"], "line 2 was changed"),
        (["UPDATE ledger SET at = '2024-03-11T13:00:00+00:00' WHERE number = 1"], "line 1 was changed"),
        (["DELETE FROM ledger WHERE number IN (2, 3)"], "lines 2 to 3 were removed"),
        (["DELETE FROM ledger WHERE number > 3"], "lines 4 to 5 were cut off at the end"),
        (["DELETE FROM ledger"], "lines 1 to 5 were cut off at the end"),
        (["DROP TABLE ledger"], "lines 1 to 5 were cut off at the end"),
        (
            [
                "UPDATE ledger SET number = number + 10 WHERE number > 2",
                "INSERT INTO ledger SELECT 3, at, 'gate', 'late', 'v9', '', digest, 'f' FROM ledger WHERE number = 2",
                "UPDATE ledger SET number = number - 9 WHERE number > 10",
            ],
            "line 3 was inserted",
        ),
        (
            [
                "UPDATE ledger SET number = -1 WHERE number = 2",
                "UPDATE ledger SET number = 2 WHERE number = 4",
                "UPDATE ledger SET number = 4 WHERE number = -1",
            ],
            "line 2 was moved: it was written behind line 3",
        ),
    ],
)
def test_whoever_takes_the_guards_away_is_found_out(ledger: Ledger, statements: list[str], said: str) -> None:
    changed(ledger, *statements)
    found = ledger.verify()
    assert found.state == "fail"
    assert said in found.reason
    assert "restore ledger.db and ledger.head from a copy" in found.reason
    for n in range(20, 27):  # what is written afterwards hides nothing
        ledger.write("gate", "late", f"v{n}", NOON, {"version": n})
        assert ledger.verify().state == "fail"


def test_the_ledger_set_aside_another_begins(ledger: Ledger, tmp_path: Path) -> None:
    ledger.path.rename(tmp_path / "old.db")
    ledger.head_path.rename(tmp_path / "old.head")
    assert ledger.verify().state == "unknown"
    ledger.write("gate", "late", "v1", NOON, {})
    assert ledger.verify().passed
    assert Ledger(tmp_path / "old.db").verify().measures["lines"] == 5


@pytest.mark.parametrize("content", [None, b"", b"5", b"\xff\xfe", b"5 abc"])
def test_a_note_that_is_gone_or_damaged_stays_missed(ledger: Ledger, content: bytes | None) -> None:
    ledger.head_path.unlink()
    if content is not None:
        ledger.head_path.write_bytes(content)
    for _ in range(2):
        found = ledger.verify()
        assert found.state == "fail"
        assert "the note of the last line is gone or damaged" in found.reason
        ledger.write("gate", "late", "v9", NOON, {})


def test_a_copy_of_before_is_taken_for_one_whose_end_was_cut_off(ledger: Ledger, tmp_path: Path) -> None:
    shutil.copy(ledger.path, tmp_path / "before.db")
    ledger.write("rejection", "late", "v5", NOON, {"version": "5"})
    shutil.copy(tmp_path / "before.db", ledger.path)
    assert "line 6 was cut off at the end" in ledger.verify().reason


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (
            "ml_platform.spec.errors.ContractBroken: 2 rows broke id; for example trip=20240310-07",
            "ml_platform.spec.errors.ContractBroken: 2 rows broke id",
        ),
        (
            'polars.exceptions.InvalidOperationError: conversion failed for ["20240310-07"]\n\nin col("trip")',
            "polars.exceptions.InvalidOperationError; its words stand in Dagster's log of run abc",
        ),
    ],
)
def test_a_step_that_failed_is_written_down_without_values_of_rows(ledger: Ledger, error: str, kept: str) -> None:
    line = ledger.write("failure", "trips", "abc/raw", NOON, {"reason": words_of(error, "abc")})
    assert line.body["reason"] == kept
    assert b"20240310-07" not in ledger.path.read_bytes()


# A ledger from before the chain

OLD = """
CREATE TABLE ledger (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    key TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (kind, subject, key))
"""
OLD_REASON = "2 of 9 served values differ: mean (2); for example 20240310-07 was served mean = 1.0, recomputed 2.0"


def old_ledger(path: Path, lines: int = 3) -> Ledger:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(OLD)
        for n in range(1, lines + 1):
            body = json.dumps({"days": str(n), "reason": OLD_REASON})
            db.execute("INSERT INTO ledger VALUES (?, ?, 'skew', 'desk', ?, ?)", (n, NOON.isoformat(), str(n), body))
    return Ledger(path)


def test_an_old_ledger_is_chained_by_the_next_line(tmp_path: Path) -> None:
    ledger = old_ledger(tmp_path / "ledger.db")
    before = ledger.entries("skew", "desk")
    assert len(before) == 3
    assert ledger.verify().state == "unknown"
    assert not ledger.head_path.exists()

    stands = ledger.write("skew", "desk", "1", NOON, {"days": "other"})
    assert (stands.number, stands.body["days"]) == (1, "1")
    ledger.write("skew", "desk", "4", NOON, {"days": "4"})
    after = ledger.entries("skew", "desk")
    assert [(line.number, line.at, line.key) for line in after[:3]] == [(e.number, e.at, e.key) for e in before]
    assert [line.number for line in after] == [1, 2, 3, 5]
    # The example that names a prediction is gone, for good: now nothing in the ledger needs to be changed any more.
    assert {line.body.get("reason") for line in after} == {"2 of 9 served values differ: mean (2)", None}
    (chained,) = ledger.entries(CHAIN, "ledger")
    assert (chained.number, dict(chained.body)) == (4, {"lines": 3})
    assert ledger.verify().measures["lines"] == 5
    assert b"20240310-07" not in ledger.path.read_bytes()


def test_pretending_that_a_ledger_is_an_old_one_is_found_out(ledger: Ledger) -> None:
    changed(
        ledger,
        "CREATE TABLE other AS SELECT number, at, kind, subject, key, replace(body, 'beats', 'bores') body FROM ledger",
        "DROP TABLE ledger",
        OLD,
        "INSERT INTO ledger SELECT * FROM other",
    )
    ledger.write("gate", "late", "v6", NOON, {})
    found = ledger.verify()
    assert found.state == "fail"
    assert "line 5 is not the one that was noted" in found.reason


# Several processes, and kills

WRITE = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from ml_platform.stores.ledger import Ledger
ledger, me = Ledger(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True); sys.stdin.readline()
for n in range(int(sys.argv[3])):
    print(ledger.write("own", "x", f"{me}-{n}", datetime(2024, 3, 10, tzinfo=UTC), {"by": me}).number, flush=True)
"""


def together(processes: list) -> None:
    """All begin before the first is waited for."""
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


@pytest.mark.parametrize("make", [Ledger, lambda path: old_ledger(path, 40)], ids=["new", "old"])
def test_several_processes_make_one_chain(tmp_path: Path, make: Callable[[Path], Ledger]) -> None:
    ledger = make(tmp_path / "ledger.db")
    processes = [python(WRITE, ledger.path, who, "15") for who in "abcd"]
    together(processes)
    assert [(process.wait(100), process.stderr.read()) for process in processes] == [(0, "")] * 4
    old = len(ledger.entries("skew", "desk"))
    found = ledger.verify()
    assert (found.state, found.measures["lines"]) == ("pass", 60 + old + bool(old))


def test_killed_anywhere_the_chain_is_whole_and_no_line_that_was_said_is_lost(tmp_path: Path) -> None:
    ledger, draw = Ledger(tmp_path / "ledger.db"), random.Random(7)
    said = 0
    for round_ in range(7):
        processes = [python(WRITE, ledger.path, f"{who}{round_}", "9999") for who in "ab"]
        together(processes)
        time.sleep(draw.uniform(0, 0.4))
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        outs = [process.communicate(timeout=50)[0] for process in processes]
        said = max([said, *(int(line) for out in outs for line in out.splitlines() if line.strip().isdecimal())])
        found = ledger.verify()
        assert found.passed or (found.state == "unknown" and said == 0), found.reason
        assert found.measures.get("lines", 0) >= said
    assert said > 20


def test_a_line_costs_little_and_so_does_looking_at_all_of_them(tmp_path: Path, record_property: Callable) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    began = time.perf_counter()
    for n in range(100):
        ledger.write("decision", "delay", str(n), NOON, {"reason": "x" * 400})
    written = (time.perf_counter() - began) / 100
    began = time.perf_counter()
    assert ledger.verify().passed
    looked = time.perf_counter() - began
    record_property("seconds_a_line", written)
    record_property("seconds_to_verify_100", looked)
    assert written < 0.25  # a few milliseconds where the disk has nothing else to do
