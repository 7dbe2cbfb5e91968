"""No trigger is ever lost, whatever the interleaving of decisions, people, drift, trainings, failures and kills."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_wants import outstanding
from ml_platform_tests.trigger_world import EASY, STRICT, ListLedger, TriggerWorld

HISTORIES = 10_000
PARTS = 4


def lived(seed: int, ledger: Ledger) -> TriggerWorld:
    """A history that ends well."""
    world = TriggerWorld(ledger, random.Random(seed))
    for _ in range(world.chance.randrange(5, 40)):
        world.move()
        world.check()
    world.settle()
    return world


@pytest.mark.parametrize("part", range(PARTS))
def test_in_the_end_what_was_wanted_was_done(part: int) -> None:
    seen = {"asked": 0, "spared": 0, "wanted": 0, "held": 0}
    for seed in range(part, HISTORIES, PARTS):
        world = lived(seed, ListLedger())
        assert outstanding(world.ledger, "m") is None
        assert world.unanswered() <= world.spared, seed
        decided = [line for policy in (STRICT, EASY) for line in world.ledger.entries("decision", policy.name)]
        seen["asked"] += len(world.asked)
        seen["spared"] += len(world.spared)
        seen["wanted"] += len(world.wants)
        seen["held"] += sum(any(rest["kind"] == "breaker" for rest in line.body["held"]) for line in decided)
    assert min(seen.values()) > 5, seen  # the histories are about something


def test_the_same_on_the_ledger_itself(tmp_path: Path) -> None:
    for seed in range(3):
        there, here = Ledger(tmp_path / f"{seed}.db"), ListLedger()
        for ledger in (there, here):
            lived(seed, ledger)
        for kind in {line.kind for line in here.lines}:
            told, expected = there.of_kind(kind), here.of_kind(kind)
            assert [replace(line, redacted=()) for line in told] == expected
