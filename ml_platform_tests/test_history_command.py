"""`ml-platform history`, `approve`, `reject` and `adopt`, on a registry and a ledger without a lake."""

import json
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ml_platform.cli import main
from ml_platform.stores.clock import Clock
from ml_platform.stores.ledger_kinds import ABORT, OF_A_MODEL, ROLLBACK, ROLLOUT
from ml_platform_tests.registry_world import HOUR, MODEL, START, Registry

WHO = ("--by", "ann", "--reason", "looked at the slices")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Version 1 is champion for a day; version 2 was judged and did not pass."""
    made = Registry.fresh(tmp_path / "home")
    made.trained_and_judged()
    assert made.deploy().action == "promoted"
    made.later().trained_and_judged("fail")
    Clock(made.folder / "clock.json").set(made.later(30).at)
    return made.later(30)


def said(registry: Registry, *words: object) -> Result:
    env = {"ML_PLATFORM_HOME": str(registry.folder), "ML_PLATFORM_PROJECT": "ml_platform_tests.trips"}
    return CliRunner().invoke(main, [*map(str, words)], env=env)


def told(registry: Registry, *words: object) -> str:
    done = said(registry, *words)
    assert done.exit_code == 0, done.output
    return done.output


def refused(registry: Registry, *words: object) -> str:
    before = registry.kinds()
    done = said(registry, *words)
    assert done.exit_code in (1, 2), done.output
    assert registry.kinds() == before
    return done.output


def test_everything_that_happened_to_a_model_is_told_in_order(registry: Registry) -> None:
    assert "line 7: version 2 of late is approved by ann" in told(registry, "approve", MODEL, 2, *WHO, "--override")
    lines = told(registry, "history", MODEL).splitlines()
    assert [line.split("UTC")[1].split()[0] for line in lines] == registry.kinds()
    assert lines[0] == "     1  2024-03-10 04:01:00 UTC  training   version 1 was registered"
    assert lines[1] == "     2  2024-03-10 04:01:00 UTC  gate       version 1 was judged, pass: pass because"
    assert lines[2].endswith("alias champion is moved from none to version 1")
    assert lines[3].endswith("version 1 is champion instead of none: pass because")
    assert lines[5].endswith("version 2 was judged, fail: fail because")
    assert lines[6].endswith("version 2 was approved by ann against the gate: looked at the slices")
    assert lines[8].endswith(
        "version 2 is champion instead of version 1: fail because; approved by ann (line 7): looked at the slices"
    )
    found = json.loads(told(registry, "history", MODEL, "--json"))
    assert (found["model"], found["broken"]) == (MODEL, None)
    assert [line["number"] for line in found["lines"]] == list(range(1, 10))
    assert {"kind", "at", "said", "version"} <= found["lines"][8].keys()


def test_every_kind_of_line_about_a_model_has_words(registry: Registry) -> None:
    body = {
        "version": "2",
        "before": None,
        "champion": "1",
        "canary": "2",
        "share": 0.1,
        "decision": 3,
        "state": "pass",
        "alias": "champion",
        "by": "ann",
        "reason": "why",
        "override": False,
        "approval": None,
        "line": 4,
        "entity": "trip",
        "fields": ["by", "reason"],
        "drift": "drift/inputs",
        "review": 5,
        "answer": "leave",
    }
    for kind in OF_A_MODEL:
        registry.ledger.write(kind, "other", "k", registry.at, body)
    lines = told(registry, "history", "other").splitlines()
    assert len(lines) == len(OF_A_MODEL)
    assert "canary version 2 takes 10%: why" in "\n".join(lines)
    assert "registered, which answers retraining 3" in "\n".join(lines)
    assert "a trip was forgotten, which by and reason of line 4 named: taken out of it" in "\n".join(lines)


def test_what_served_at_a_moment(registry: Registry) -> None:
    told(registry, "approve", MODEL, 2, *WHO, "--override")
    steps: list[tuple[str, int, dict[str, object]]] = [
        (ROLLOUT, 31, {"champion": "2", "canary": "3", "share": 0.25, "reason": "first step"}),
        (ROLLBACK, 33, {"version": "2", "before": "3", "reason": "more errors"}),
        (ABORT, 34, {"canary": "3", "reason": "ended"}),
    ]
    for kind, hours, body in steps:
        registry.ledger.write(kind, MODEL, f"{hours}", START + hours * HOUR, body)
    Clock(registry.folder / "clock.json").set(START + 40 * HOUR)

    def at(hours: float) -> str:
        return told(registry, "history", MODEL, "--at", (START + hours * HOUR).isoformat())

    assert at(-1) == (
        "nothing of late served at 2024-03-10 03:01:00 UTC; the first that did, did since 2024-03-10 04:01:00 UTC "
        "(line 4)\n"
    )
    assert at(0).startswith("at 2024-03-10 04:01:00 UTC version 1 answered 100% of late, since 2024-03-10 04:01:00 UTC")
    assert "by line 4\n     4  2024-03-10 04:01:00 UTC  promotion  version 1 is champion" in at(29.9)
    assert "version 2 answered 100% of late, since 2024-03-11 10:01:00 UTC, by line 9" in at(30)
    assert "version 2 answered 75% and version 3 answered 25% of late" in at(32)
    assert "version 2 answered 100% of late, since 2024-03-11 13:01:00 UTC, by line 11" in at(40)
    elsewhere = "2024-03-11T07:01:00-04:00"  # 31 hours after the start
    found = json.loads(told(registry, "history", MODEL, "--json", "--at", elsewhere))
    assert found == {
        "model": MODEL,
        "at": "2024-03-11T11:01:00+00:00",
        "champion": "2",
        "canary": "3",
        "shares": {"2": 0.75, "3": 0.25},
        "since": "2024-03-11T11:01:00+00:00",
        "line": 10,
        "broken": None,
    }


@pytest.mark.parametrize(
    ("moment", "says"),
    [
        ("2024-03-10T05:00", "has no timezone; for UTC write 2024-03-10T05:00:00+00:00"),
        ("2024-03-10", "has no timezone; for UTC write 2024-03-10T00:00:00+00:00"),
        ("yesterday", "'yesterday' is no moment like 2013-04-15T12:30+00:00"),
        ("", "'' is no moment like"),
        ("2024-03-12T05:00+00:00", "has not come yet: it is 2024-03-11 10:01:00 UTC for the platform"),
    ],
)
def test_a_moment_that_means_nothing_is_a_usage_error(registry: Registry, moment: str, says: str) -> None:
    assert says in refused(registry, "history", MODEL, "--at", moment)


def test_names_that_do_not_exist_offer_the_near_ones(registry: Registry) -> None:
    for command in ("approve", "reject", "adopt"):
        assert "no model named 'lat'; did you mean late?" in refused(registry, command, "lat", 1, *WHO)
        assert "no version of model late named '7'; known: 1, 2" in refused(registry, command, MODEL, 7, *WHO)
        assert re.search(r"Invalid value for '\[?VERSION\]?'", refused(registry, command, MODEL, "two", *WHO))
        assert "Missing option '--by'" in refused(registry, command, MODEL, 2, "--reason", "r")
        assert "Missing option '--reason'" in refused(registry, command, MODEL, 2, "--by", "ann")
        assert "give --by a name" in refused(registry, command, MODEL, 2, "--by", "", "--reason", "r")
    assert "no model named 'lte'; did you mean late?" in refused(registry, "history", "lte")


def test_a_model_without_lines_is_said_so(tmp_path: Path) -> None:
    registry = Registry.fresh(tmp_path / "home")
    assert told(registry, "history", MODEL) == "the ledger says nothing of late yet\n"
    assert told(registry, "history", MODEL, "--at", "2024-03-10T05:00+00:00") == (
        "nothing of late served at 2024-03-10 05:00:00 UTC\n"
    )


def test_rejected_and_adopted_from_the_shell(registry: Registry) -> None:
    third = registry.trained_and_judged()
    assert f"line 9: version {third} of late is rejected by ann" in told(registry, "reject", MODEL, third, *WHO)
    assert f"version {third} of late was rejected by ann" in refused(registry, "approve", MODEL, third, *WHO)
    assert "did not pass the gate (fail)" in refused(registry, "approve", MODEL, 2, *WHO)
    registry.move_by_hand(2)
    registry.deploy()
    assert "first say which champion is right" in refused(registry, "approve", MODEL, 2, *WHO)
    assert "version 1 of late is champion, said ann" in told(registry, "adopt", MODEL, 1, *WHO)
    assert registry.champion == 1


def test_a_promotion_that_has_to_wait_is_told(registry: Registry) -> None:
    third = registry.trained_and_judged()
    days = {"days": "2024-03-10..2024-03-10", "compared": 9, "differing": 2, "reason": "2 of 9 served values differ"}
    registry.ledger.write("skew", "desk", "2024-03-10..2024-03-10", registry.at, days)
    done = told(registry, "approve", MODEL, third, *WHO)
    assert "services/desk: held, champion is 1: version 3 waits until desk serves what is recomputed again" in done
    mended = {**days, "differing": 0}
    registry.ledger.write("skew", "desk", "mended", registry.at, mended)
    assert "services/desk: promoted, champion is 3" in told(registry, "approve", MODEL, third, *WHO)


def test_a_broken_chain_answers_nothing_unless_asked_to_and_then_says_so(registry: Registry) -> None:
    with closing(sqlite3.connect(registry.ledger.path)) as db, db:
        db.execute("DROP TRIGGER keeps_words")
        db.execute("UPDATE ledger SET body = replace(body, 'fail', 'pass') WHERE number = 6")
    for words in ([], ["--json"], ["--at", START.isoformat()]):
        done = said(registry, "history", MODEL, *words)
        assert done.exit_code == 1
        assert done.stdout == ""
        assert "LedgerBroken" in done.stderr
        assert "line 6 was changed: restore ledger.db and ledger.head from a copy" in done.stderr
        anyway = said(registry, "history", MODEL, "--anyway", *words)
        assert anyway.exit_code == 1
        assert "line 6 was changed" in anyway.stderr
        assert "What follows cannot be trusted" in anyway.stderr
        assert "1" in anyway.stdout
    found = json.loads(said(registry, "history", MODEL, "--anyway", "--json").stdout)
    assert "line 6 was changed" in found["broken"]


def test_what_time_it_is_the_platform_says(registry: Registry) -> None:
    """Replayed time: what a person says now is of the replay's moment."""
    told(registry, "approve", MODEL, 2, *WHO, "--override")
    line = registry.ledger.last("approval", MODEL)
    assert line is not None
    assert line.at == START + timedelta(hours=30)
