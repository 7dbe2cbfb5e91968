"""What served is reconstructed for every instant, whatever was promoted, tried as a canary, rolled back or aborted."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import ABORT, ADOPTION, FOUND, OF_A_MODEL, PROMOTION, ROLLBACK, ROLLOUT
from ml_platform.stores.ledger_serving import chosen, periods, serving_at, serving_now

MIDNIGHT = datetime(2024, 3, 10, tzinfo=UTC)
MINUTES = 60


class MemoryLedger(Ledger):
    """The same class over one SQLite connection in memory: a thousand histories in seconds."""

    def __init__(self, there: Path) -> None:
        super().__init__(there)
        object.__setattr__(self, "_db", sqlite3.connect(":memory:"))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db: sqlite3.Connection = self._db  # type: ignore[attr-defined]
        with db:
            yield db


@dataclass
class World:
    """Requests are split minute by minute; what is done at a minute holds for it and all that follow.

    ``split``: minute -> version -> share of the requests, None before anything was said.
    """

    ledger: Ledger
    split: list[dict[str, float] | None] = field(default_factory=lambda: [None] * MINUTES)
    champion: str | None = None
    now: int = 0

    def write(self, kind: str, minute: int, body: Mapping[str, Any]) -> None:
        at = MIDNIGHT + timedelta(minutes=minute)
        self.ledger.write(kind, "late", f"{len(self.lines())}", at, body)

    def lines(self) -> list[Entry]:
        return self.ledger.about("late", OF_A_MODEL)

    def from_now_on(self, **shares: float) -> None:
        for minute in range(self.now, MINUTES):
            self.split[minute] = {version[1:]: share for version, share in shares.items() if share}

    def do(self, what: str, minute: int, version: str, share: float) -> None:
        """One thing, by the clock at ``minute``; if that was set back, it holds from the last thing on all the same."""
        if what == "judge":  # says nothing about what serves
            self.write("gate", minute, {"version": version, "state": "fail", "reason": "worse"})
            return
        self.now = max(self.now, minute)
        before = self.champion
        if what == "promote":
            self.champion = version
            self.from_now_on(**{f"v{version}": 1})
            self.write(PROMOTION, minute, {"version": version, "before": before, "reason": "better"})
        elif what == "canary":
            self.from_now_on(**({f"v{before}": 1 - share} if before else {}) | {f"v{version}": share})
            self.write(ROLLOUT, minute, {"champion": before, "canary": version, "share": share, "reason": "next step"})
        elif what == "roll back":
            self.champion = version
            self.from_now_on(**{f"v{version}": 1})
            self.write(ROLLBACK, minute, {"version": version, "before": before, "reason": "more errors"})
        elif what == "abort":
            self.from_now_on(**({f"v{before}": 1} if before else {}))
            self.write(ABORT, minute, {"canary": version, "reason": "asked to"})
        elif what in ("move by hand", "adopt"):
            self.champion = version if version != "3" or what == "adopt" else None
            self.from_now_on(**({f"v{self.champion}": 1} if self.champion else {}))
            kind = FOUND if what == "move by hand" else ADOPTION
            self.write(kind, minute, {"alias": "champion", "version": self.champion, "before": before})


THINGS = st.lists(
    st.tuples(
        st.sampled_from(
            ["promote", "canary", "canary", "canary", "roll back", "abort", "move by hand", "adopt", "judge"]
        ),
        st.integers(0, 7),  # minutes that pass
        st.integers(0, 3),  # minutes that the clock is set back by, mostly none
        st.sampled_from(["1", "2", "3"]),
        st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    ),
    max_size=14,
)


@settings(max_examples=500, deadline=None)
@given(THINGS)
def test_every_instant_of_random_sequences_is_reconstructed(
    tmp_path_factory: pytest.TempPathFactory, things: list[tuple[str, int, int, str, float]]
) -> None:
    world = World(MemoryLedger(tmp_path_factory.getbasetemp()))
    clock = 0
    for what, passes, back, version, share in things:
        clock = min(max(0, clock + passes - (back if back == 3 else 0)), MINUTES - 1)
        # A canary is never a champion's own version.
        world.do(what, clock, f"1{version}" if what in ("canary", "abort") else version, share)
    lines = world.lines()
    for minute, split in enumerate(world.split):
        for moment in (MIDNIGHT + timedelta(minutes=minute), MIDNIGHT + timedelta(minutes=minute, seconds=59.999)):
            found = serving_at(reversed(lines), moment)
            assert (found.shares if found else None) == split, (minute, lines)
            if found:
                since = int((found.since - MIDNIGHT).total_seconds() / 60)
                assert world.split[since : minute + 1] == [split] * (minute + 1 - since)
                assert found.line.at <= found.since
    assert serving_at(lines, MIDNIGHT - timedelta(seconds=1)) is None
    newest = serving_now(lines)
    assert (newest.champion if newest else None) == world.champion
    _assert_periods(lines)


def _assert_periods(lines: list[Entry]) -> None:
    """They follow one another, and no two neighbours are the same."""
    found = periods(lines)
    for before, after in pairwise(found):
        assert before.since < after.since
        assert (before.champion, before.canary, before.share) != (after.champion, after.canary, after.share)
        assert (before.champion_since == after.champion_since) == (before.champion == after.champion)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Ledger(tmp_path / "ledger.db"))


def test_a_champion_is_one_since_it_was_promoted_whatever_canaries_came(world: World) -> None:
    for what, minute, version, share in [
        ("promote", 1, "1", 0),
        ("canary", 5, "2", 0.1),
        ("canary", 9, "2", 0.5),
        ("roll back", 12, "1", 0),
        ("canary", 20, "3", 0.1),
        ("abort", 21, "3", 0),
        ("canary", 30, "4", 0.5),
        ("promote", 40, "4", 0),
    ]:
        world.do(what, minute, version, share)
    told = [(int((p.since - MIDNIGHT).total_seconds() // 60), p.shares, p.line.kind) for p in periods(world.lines())]
    assert told == [
        (1, {"1": 1.0}, "promotion"),
        (5, {"1": 0.9, "2": 0.1}, "rollout"),
        (9, {"1": 0.5, "2": 0.5}, "rollout"),
        (12, {"1": 1.0}, "rollback"),
        (20, {"1": 0.9, "3": 0.1}, "rollout"),
        (21, {"1": 1.0}, "abort"),
        (30, {"1": 0.5, "4": 0.5}, "rollout"),
        (40, {"4": 1.0}, "promotion"),
    ]
    since = [int((p.champion_since - MIDNIGHT).total_seconds() // 60) for p in periods(world.lines())]
    assert since == [1, 1, 1, 1, 1, 1, 1, 40]


def test_what_somebody_else_moved_serves_and_was_not_chosen(world: World) -> None:
    world.do("promote", 1, "1", 0)
    world.do("move by hand", 5, "2", 0)
    now, right = serving_now(world.lines()), chosen(world.lines())
    assert now is not None
    assert right is not None
    assert (now.champion, now.line.kind, right.champion) == ("2", "found", "1")
    world.do("adopt", 7, "2", 0)
    now, right = serving_now(world.lines()), chosen(world.lines())
    assert now is not None
    assert right is not None
    assert (now.champion, now.champion_since, right.champion) == ("2", MIDNIGHT + timedelta(minutes=5), "2")


def test_lines_of_one_moment_count_in_the_order_in_which_they_were_written(world: World) -> None:
    world.do("promote", 1, "1", 0)
    world.do("promote", 5, "2", 0)
    world.do("promote", 5, "1", 0)
    found = serving_at(world.lines(), MIDNIGHT + timedelta(minutes=5))
    assert found is not None
    assert (found.champion, found.since, found.line.number) == ("1", MIDNIGHT + timedelta(minutes=1), 1)
