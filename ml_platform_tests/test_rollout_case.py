"""The evidence of a rollout, from the records of a prediction log."""

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from ml_platform.serving.case import Case
from ml_platform.serving.rollout import Look, against
from ml_platform.serving.traffic import CANARY, CHAMPION, Split
from ml_platform.spec import BusinessMetric, RolloutPolicy

BEGUN = datetime(2013, 4, 1, tzinfo=UTC)
POLICY = RolloutPolicy(service="delay")
COST = BusinessMetric(
    value=pl.when(pl.col("probability") >= 0.5).then(1 - pl.col("label")).otherwise(3 * pl.col("label")),
    low=0,
    high=3,
    margin=0.05,
    description="A missed delay costs three false warnings.",
)
Records = dict[str, list[dict[str, Any]]]


def traffic(
    count: int,
    *,
    share: float = 0.25,
    seed: int = 1,
    failing: float = 0.0,
    slower: float = 1.0,
    worse: float = 0.0,
    shadow: bool = True,
) -> Records:
    """Records of a canary that fails more often, is slower, or whose probabilities are drawn to one half."""
    draw = random.Random(seed)
    split = Split(by=("flight",), share=share, salt="delay/1")
    found: Records = {"predictions": [], "failures": [], "shadow": [], "labels": []}
    for n in range(count):
        entities = {"flight": f"F{n}", "route": f"R{n % 50}"}
        variant = split.variant(entities)
        true = draw.random() ** 2
        said = {CHAMPION: true, CANARY: true + worse * (0.5 - true)}
        fails = draw.random() < (0.01 + failing if variant == CANARY else 0.01)
        at = (BEGUN + timedelta(seconds=60 * n)).isoformat()
        base = {"id": f"F{n}", "asked_at": at, "answered_at": at, "entities": entities, "variant": variant}
        base |= {"version": "2" if variant == CANARY else "1", "chance": split.probability(variant)}
        if fails:
            found["failures"].append({**base, "reason": "it broke"})
            continue
        seconds = draw.lognormvariate(-6, 0.4) * (slower if variant == CANARY else 1)
        found["predictions"].append({**base, "probability": said[variant], "seconds": seconds})
        other = CHAMPION if variant == CANARY else CANARY
        if shadow:
            found["shadow"].append({**base, "variant": other, "probability": said[other]})
        found["labels"].append({"id": f"F{n}", "value": int(draw.random() < true), "known_at": at})
    return found


def judged(policy: RolloutPolicy, records: Records, pieces: int = 1, share: float = 0.25) -> Look:
    case = Case(policy)
    for piece in range(pieces):
        for stream, take in (
            ("predictions", case.answered),
            ("failures", case.failed),
            ("shadow", case.shadow),
            ("labels", case.learned),
        ):
            some = records[stream]
            take(some[len(some) * piece // pieces : len(some) * (piece + 1) // pieces])
        look = case.look(BEGUN + timedelta(days=9), share)
    return look


def test_an_equal_canary_gathers_evidence_for_it_and_none_against() -> None:
    policy = replace(POLICY, metrics={"cost": COST})
    look = judged(policy, traffic(4000))
    assert against(policy, look) < 5
    assert look.standings["loss"].in_favour > 20
    assert look.standings["cost"].canary > 3800
    assert look.shadowed > 3800
    assert 800 < look.answered < 1200
    assert {name: standing.champion > 2500 for name, standing in look.standings.items()} == dict.fromkeys(
        policy.guards, True
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"failing": 0.05}, "errors"), ({"slower": 2.0}, "latency"), ({"worse": 0.8}, "loss")],
)
@pytest.mark.parametrize("paired", [True, False])
def test_a_bad_canary_is_found_by_the_guard_that_it_breaks(changes: dict[str, float], named: str, paired: bool) -> None:
    policy = replace(POLICY, paired=paired)
    look = judged(policy, traffic(6000, **changes, shadow=paired))
    worst = max(policy.guards, key=lambda name: look.standings[name].against)
    assert (worst, against(policy, look) > 20) == (named, True)


def test_a_canary_that_fails_unseen_is_found_in_the_shadow() -> None:
    records = traffic(300, share=0.0)
    for record in records["shadow"][::10]:
        record["probability"] = None
    look = judged(POLICY, records)
    assert look.standings["shadow_errors"].against > 80
    assert look.answered == 0
    assert look.standings["errors"].canary == look.standings["latency"].canary == 0


@pytest.mark.parametrize("pieces", [2, 7, 60])
def test_evidence_is_the_same_however_the_log_is_read(pieces: int) -> None:
    policy = replace(POLICY, metrics={"cost": COST}, paired=pieces != 7)
    records = traffic(600, failing=0.02, worse=0.3)
    assert _values(judged(policy, records, pieces)) == _values(judged(policy, records))


def test_a_record_read_twice_counts_once() -> None:
    records = traffic(400, failing=0.05)
    twice = {stream: [one for record in some for one in (record, record)] for stream, some in records.items()}
    assert _values(judged(POLICY, twice, 5)) == _values(judged(POLICY, records))


def test_of_a_unit_the_first_answer_counts() -> None:
    """Retries of one flight under ids of their own are one piece of evidence."""
    policy = replace(POLICY, evidence_by=("flight",), assign_by=("flight",))
    records = traffic(400, failing=0.05)
    more = {stream: [*some] for stream, some in records.items()}
    for stream, some in records.items():
        if stream != "labels":
            more[stream] += [{**record, "id": record["id"] + "'"} for record in some]
    more["labels"] += [{**label, "id": label["id"] + "'"} for label in records["labels"]]
    expected = judged(policy, records)
    found = judged(policy, more)
    assert {name: (one.canary, one.champion) for name, one in found.standings.items() if name != "errors"} == {
        name: (one.canary, one.champion) for name, one in expected.standings.items() if name != "errors"
    }
    assert found.answered == expected.answered


def test_units_are_counted_in_the_step_that_drew_them() -> None:
    """A worker that has not heard of the next step yet answers in the one before."""
    records = traffic(1000)
    assert judged(POLICY, records).answered > 200
    assert judged(POLICY, records, share=0.5).answered == 0


def _values(look: Look) -> Mapping[str, Any]:
    return {**{name: vars(standing) for name, standing in look.standings.items()}, "shadowed": look.shadowed}
