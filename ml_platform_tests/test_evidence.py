"""Evidence of records: the first event of a unit, any cutting up, restarts, workers, and never a pass without data."""

import json
import math
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from ml_platform.serving.eprocess import BETS, EProcess, below, levels_before, odds_sums, weighted_differences
from ml_platform.serving.evidence import Gathered, judged
from ml_platform.serving.evidence_account import Metric
from ml_platform.serving.recent import EVERY, QUANTILES, WINDOW

FAILED = Metric(name="failed", kind="failures")
SECONDS = Metric(name="seconds", kind="seconds")
LOSS = Metric(name="loss", kind="bounded", margin=0.05)
REVENUE = Metric(name="revenue", kind="bounded", low=-10, high=90, higher_is_better=True, tolerance=1, margin=5)
SHADOW = Metric(name="loss", kind="bounded", margin=0.02, paired_with="champion_loss")
ALL = (FAILED, SECONDS, LOSS, REVENUE)


def records(
    seed: int, rows: int, *, units: int | None = None, times: float = 1.0, failing: float = 0.05
) -> pl.DataFrame:
    """Sticky assignment while the share ramps; some values missing, as before a label came."""
    chance = np.random.default_rng(seed)
    unit = chance.integers(0, units or 10 * rows, rows)
    share = np.repeat([0.05, 0.2, 0.5], -(-rows // 3))[:rows]
    mine = np.random.default_rng(99).random(10 * rows + 1)[unit] < share
    seconds = np.exp(0.4 * chance.standard_normal(rows)) * np.where(mine, times, 1)
    return pl.DataFrame(
        {
            "unit": unit,
            "variant": np.where(mine, "canary", "champion"),
            "probability": share,
            "failed": chance.random(rows) < failing * np.where(mine, times, 1),
            "seconds": seconds,
            "loss": np.clip(0.2 * seconds, 0, 1),
            "revenue": chance.uniform(-10, 90, rows),
        }
    ).with_columns(
        pl.when(pl.Series(chance.random(rows) < 0.7)).then(pl.col(name)).alias(name) for name in ("seconds", "loss")
    )


def gathered(frame: pl.DataFrame, metrics=ALL) -> Gathered:
    return Gathered.nothing(metrics).after(frame)


def found_of(frame: pl.DataFrame, metric: Metric):
    return gathered(frame, (metric,)).evidence()[0]


def firsts(frame: pl.DataFrame, name: str) -> list[dict]:
    """The counted records, by the rule written out."""
    seen, kept = set(), []
    for row in frame.iter_rows(named=True):
        if row[name] is not None and row["unit"] not in seen:
            seen.add(row["unit"])
            kept.append(row)
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_any_cutting_up_with_restarts_between_gives_the_same_bits(seed):
    frame = records(seed, 900, units=None if seed % 2 else 400, times=1 + seed / 20)
    chance = np.random.default_rng(seed)
    parts = Gathered.nothing(ALL)
    cuts = [0, *sorted(chance.integers(0, 901, 6).tolist()), 900]
    for start, stop in pairwise(cuts):
        parts = parts.after(frame[start:stop])
        parts = Gathered.from_json(ALL, json.loads(json.dumps(parts.as_json())))
    assert parts.as_json() == gathered(frame).as_json()
    assert parts.evidence() == gathered(frame).evidence()


@pytest.mark.parametrize("seed", range(10))
def test_failures_are_the_events_of_first_records(seed):
    frame = records(seed, 400, units=150, failing=0.4)
    bad = [row for row in firsts(frame, "failed") if row["failed"]]
    mine = np.array([row["variant"] == "canary" for row in bad], float)
    w, ones = np.array([row["probability"] for row in bad]), np.ones(len(bad))
    found = found_of(frame, FAILED)
    assert found.rollback == pytest.approx(EProcess.over(40).after(odds_sums(mine, ones, w)).log_e)
    expected = EProcess.over(40).after(odds_sums(mine, ones, w, odds=below(1.5), against=1.5))
    assert found.promotion == pytest.approx(expected.log_e)
    assert (found.canary.units, found.canary.total) == (
        sum(row["variant"] == "canary" for row in firsts(frame, "failed")),
        mine.sum(),
    )


@pytest.mark.parametrize("metric", [LOSS, REVENUE])
@pytest.mark.parametrize("seed", range(5))
def test_a_bounded_metric_is_the_bets_on_its_first_values(seed, metric):
    frame = records(seed, 500, units=300)
    rows = firsts(frame, metric.name)
    values = np.array([row[metric.name] for row in rows])
    losses = (metric.high - values) / 100 if metric.higher_is_better else values
    canary = [row["variant"] == "canary" for row in rows]
    w = [row["probability"] for row in rows]
    differences = weighted_differences(losses, canary, w, levels_before(losses))
    sums = differences.against_at_most(metric.tolerance / 100)
    found = found_of(frame, metric)
    assert found.rollback == pytest.approx(EProcess.over(len(BETS)).after(sums).log_e)
    means = {side: values[np.array(canary) == mine].mean() for side, mine in (("canary", True), ("champion", False))}
    assert found.canary.total / found.canary.units == pytest.approx(means["canary"])
    assert found.champion.total / found.champion.units == pytest.approx(means["champion"])


@pytest.mark.parametrize("seed", range(3))
def test_seconds_are_compared_with_quantiles_of_before(seed):
    """Against the rule written out: of each record the quantiles of the last records when a full EVERY were in."""
    frame = records(seed, 2 * WINDOW, times=1.2)
    rows = firsts(frame, "seconds")
    events = {place: [] for place in range(len(QUANTILES))}
    for number, row in enumerate(rows):
        frozen = number // EVERY * EVERY
        theirs = sorted(
            each["seconds"] for each in rows[max(0, frozen - WINDOW) : frozen] if each["variant"] == "champion"
        )
        for place, share in enumerate(QUANTILES if len(theirs) >= 100 else ()):
            if row["seconds"] > theirs[math.ceil(share * len(theirs)) - 1]:
                events[place].append((row["variant"] == "canary", row["probability"]))
    logs = []
    for some in events.values():
        mine, w = np.array(some, float).reshape(-1, 2).T
        logs.append(EProcess.over(40).after(odds_sums(mine, np.ones(len(mine)), w)).e)
    assert len(rows) > WINDOW
    assert all(events.values())
    assert math.exp(found_of(frame, SECONDS).rollback) == pytest.approx(np.mean(logs), rel=1e-6)


def test_a_retry_counts_for_nothing():
    first = {"unit": ["a", "b"], "variant": ["canary", "champion"], "probability": [0.1, 0.1], "failed": [True, False]}
    again = {"unit": ["a"] * 50, "variant": ["canary"] * 50, "probability": [0.1] * 50, "failed": [True] * 50}
    once = gathered(pl.DataFrame(first), (FAILED,))
    assert once.after(again).as_json() == once.as_json()
    assert once.evidence()[0].events == 1


def test_units_of_one_assigned_unit_count_once():
    one_customer = {
        "unit": [f"request-{n}" for n in range(50)],
        "variant": ["canary"] * 50,
        "probability": [0.1] * 50,
        "failed": [True] * 50,
    }
    assert found_of(pl.DataFrame(one_customer), FAILED).events == 50
    assert found_of(pl.DataFrame({**one_customer, "assigned": ["customer"] * 50}), FAILED).events == 1


def test_a_label_that_comes_later_counts_then():
    answers = {"unit": [1, 2], "variant": ["canary", "champion"], "probability": [0.5, 0.5], "failed": [False, False]}
    state = gathered(pl.DataFrame(answers), (FAILED, LOSS))
    assert [found.canary.units for found in state.evidence()] == [1, 0]
    assert "no data" in state.evidence()[1].sentence
    labels = {"unit": [1, 2], "variant": ["canary", "champion"], "probability": [0.5, 0.5], "loss": [0.3, 0.1]}
    assert [found.events for found in state.after(labels).evidence()] == [0, 2]


# Verdicts


def test_no_data_is_never_a_pass():
    nothing = Gathered.nothing(ALL).evidence()
    verdict = judged(nothing)
    assert verdict.state == "unknown"
    assert not verdict.passed
    assert "no data" in verdict.reason
    assert [found.rollback for found in nothing] == [0.0] * 4


def test_one_side_alone_is_neither_passed_nor_rolled_back():
    frame = records(1, 3000, failing=0.3)
    for variant in ("canary", "champion"):
        alone = found_of(frame.filter(pl.col("variant") == variant), FAILED)
        assert not alone.rolls_back(0.05)
        assert not alone.promotes(0.05)
        assert "no data on" in alone.sentence


def test_a_metric_without_labels_holds_the_promotion():
    frame = records(2, 20_000, failing=0.2)
    assert judged(gathered(frame, (FAILED,)).evidence()).state == "pass"
    held = judged(gathered(frame.drop("loss"), (FAILED, LOSS)).evidence())
    assert held.state == "unknown"
    assert "loss: no data" in held.reason


def test_a_much_worse_canary_is_rolled_back_with_the_reason():
    frame = records(3, 6000, times=4)
    verdict = judged(gathered(frame).evidence())
    assert verdict.state == "fail"
    assert verdict.reason.startswith("roll back: ")
    assert verdict.measures["rollback_log_e"] > math.log(20)


def test_where_little_fails_an_absolute_margin_promotes():
    frame = records(4, 30_000, failing=0.0)
    share = Metric(name="share_failed", kind="bounded", column="failed", margin=0.005)
    odds, absolute = gathered(frame, (FAILED, share)).evidence()
    assert (odds.events, odds.promotes(0.05)) == (0, False)
    assert absolute.promotes(0.05)


def test_everything_to_the_canary_teaches_nothing():
    frame = pl.DataFrame({"unit": range(50), "variant": ["canary"] * 50, "probability": [1.0] * 50})
    frame = frame.with_columns(failed=pl.lit(True), loss=pl.lit(1.0), seconds=pl.lit(2.0), revenue=pl.lit(0.0))
    assert [found.rollback for found in gathered(frame).evidence()] == [0.0] * 4


@pytest.mark.parametrize(("worse", "state"), [(0.0, "pass"), (0.06, "fail")])
def test_a_shadow_is_judged_by_pairs(worse, state):
    chance = np.random.default_rng(5)
    theirs = chance.uniform(0.3, 0.7, 4000)
    mine = np.clip(theirs + worse + 0.05 * chance.standard_normal(4000), 0, 1)
    rows = {"unit": range(4000), "variant": ["champion"] * 4000, "probability": [0.0] * 4000}
    found = found_of(pl.DataFrame({**rows, "loss": mine, "champion_loss": theirs}), SHADOW)
    assert judged([found]).state == state
    assert found.canary.total == pytest.approx(mine.sum())
    assert found.champion.total == pytest.approx(theirs.sum())


# Workers


def test_workers_with_units_of_their_own_add():
    frame = records(8, 3000, times=1.5)
    parts = [frame.filter(pl.col("unit") % 2 == rest) for rest in (0, 1)]
    one, other = (gathered(part, (FAILED,)) for part in parts)
    merged, whole = one.merged(other).evidence()[0], gathered(frame, (FAILED,)).evidence()[0]
    assert merged.rollback == pytest.approx(whole.rollback)
    assert merged.promotion == pytest.approx(whole.promotion)
    assert (merged.canary, merged.champion, merged.events) == (whole.canary, whole.champion, whole.events)


def test_a_unit_at_two_workers_or_of_another_rollout_is_refused():
    state = gathered(records(8, 50), (FAILED,))
    with pytest.raises(ValueError, match="counted by both"):
        state.merged(state)
    with pytest.raises(ValueError, match="different metrics"):
        state.merged(Gathered.nothing((LOSS,)))
    with pytest.raises(ValueError, match="not of these metrics"):
        Gathered.from_json((LOSS,), state.as_json())


def test_a_stored_state_names_no_unit():
    frame = records(8, 50).with_columns(pl.lit("N784JB").alias("unit"))
    assert "N784JB" not in json.dumps(gathered(frame).as_json())


# Bad records


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"probability": [1.5]}, "assignment probability"),
        ({"probability": [math.nan]}, "assignment probability"),
        ({"probability": [None]}, "no probability"),
        ({"probability": [0.0]}, "nobody could be assigned"),
        ({"variant": ["shadow"]}, "shadow"),
        ({"unit": [None]}, "no unit"),
        ({"assigned": [None]}, "no assigned"),
        ({"loss": [1.2]}, "metric loss: .*declared range"),
        ({"loss": [math.nan]}, "metric loss: .*declared range"),
        ({"seconds": [-1.0]}, "metric seconds"),
        ({"seconds": [math.inf]}, "metric seconds"),
        ({"failed": [0.5]}, "metric failed"),
    ],
)
def test_bad_records_are_refused_with_their_column(change, word):
    good = {
        "unit": ["a"],
        "variant": ["canary"],
        "probability": [0.5],
        "failed": [True],
        "seconds": [1.0],
        "loss": [0.1],
    }
    with pytest.raises(ValueError, match=word):
        gathered(pl.DataFrame({**good, **change}), (FAILED, SECONDS, LOSS))


def test_a_column_that_must_be_there_is_asked_for():
    for column in ("unit", "variant", "probability"):
        with pytest.raises(ValueError, match=f"no column '{column}'"):
            gathered(records(1, 5).drop(column))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "speed"},
        {"kind": "bounded"},
        {"kind": "bounded", "margin": 0.1, "tolerance": 0.1},
        {"kind": "bounded", "margin": 2.0},
        {"kind": "bounded", "margin": 0.1, "low": 1, "high": 1},
        {"kind": "failures", "margin": 1.0},
        {"kind": "failures", "tolerance": 0.1},
        {"kind": "seconds", "paired_with": "other"},
    ],
)
def test_a_metric_that_cannot_be_counted_is_refused(wrong):
    with pytest.raises(ValueError, match=r"margin|kind|range|bounded"):
        Metric(name="m", **wrong)


def test_a_rollout_needs_metrics_of_different_names():
    for metrics in ((), (FAILED, FAILED)):
        with pytest.raises(ValueError, match="at least one metric"):
            Gathered.nothing(metrics)
    with pytest.raises(ValueError, match="e-values"):
        judged([])
