"""The backtest against brute force and against the platform's own functions, on the trips."""

import os
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ml_platform import metrics
from ml_platform.decisions import backtest_versions
from ml_platform.decisions.backtest import (
    DECLARED,
    NEVER,
    RANDOM,
    TIMER,
    WEEKLY,
    Question,
    arena_of,
    backtest,
    declared_for,
)
from ml_platform.decisions.backtest_cohorts import Span
from ml_platform.decisions.backtest_estimate import log_rows
from ml_platform.decisions.backtest_figures import gain, judged, losses_of
from ml_platform.decisions.backtest_history import ROW, History, history, read_history
from ml_platform.decisions.backtest_policies import by_evidence, drawn, every, never, on, on_drift
from ml_platform.decisions.backtest_replay import Arena, replay
from ml_platform.decisions.backtest_vary import varied
from ml_platform.evaluation.intervals import draw
from ml_platform.monitoring.performance import cohorts, first_followed, newest
from ml_platform.resources.projects import load_project
from ml_platform.sources.whole import read_whole
from ml_platform.spec import KNOWN_AT, DeclarationError, Project, RetrainPolicy, TooFewLabels, Verdict
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.training.training_set import label_maturity, split, training_rows
from ml_platform_tests.replay_world import PACKAGE
from ml_platform_tests.trips.world import BEHAVIOUR, NY, SHIFTS_ON

FIRST, LAST = date(2024, 3, 6), date(2024, 3, 20)
ASKED = Question(first=FIRST, last=LAST, since=FIRST, draws=4)


@pytest.fixture(scope="module")
def trips() -> Project:
    return load_project(PACKAGE)


@pytest.fixture(scope="module")
def frames(trips: Project) -> dict[str, pl.DataFrame]:
    """All of the shifted world; one ending in twenty was told wrongly at first and corrected a day later."""
    before, os.environ[BEHAVIOUR] = os.environ.get(BEHAVIOUR), "shifted"
    try:
        found = read_whole(trips, LAST)
    finally:
        os.environ.pop(BEHAVIOUR)
        if before is not None:
            os.environ[BEHAVIOUR] = before
    ended = found["ended"]
    wrong = ended.gather_every(20).with_columns(
        pl.col("minutes_late") + 30, (pl.col(KNOWN_AT) - timedelta(minutes=1)).alias(KNOWN_AT)
    )
    right = ended.join(wrong, on="trip", how="semi").with_columns(pl.col(KNOWN_AT) + timedelta(days=1))
    return {**found, "ended": pl.concat([ended.join(wrong, on="trip", how="anti"), wrong, right])}


@pytest.fixture(scope="module")
def known(trips: Project, frames: dict[str, pl.DataFrame]) -> History:
    return history(trips, trips.models["late"], frames, until=LAST)


@pytest.fixture(scope="module")
def arena(known: History, tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return arena_of(known, ASKED, tmp_path_factory.mktemp("versions"), threads=1)


# What could be known


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hours=st.integers(0, 24 * 15 - 1))
def test_a_moment_s_rows_are_those_of_a_training_at_that_moment(
    trips: Project, frames: dict[str, pl.DataFrame], known: History, hours: int
) -> None:
    spec, now = trips.models["late"], day_start(FIRST, NY) + timedelta(hours=hours)
    spine, outcomes = frames["asked"], frames["ended"]
    seen = {name: rows.filter(pl.col(KNOWN_AT) <= now) for name, rows in frames.items()}
    since = day_start(trips.ready_from, NY)
    real = training_rows(
        spec, seen[spec.task.spine], seen[spec.task.label.table], seen, trips.views_of(spec), now, since=since
    )
    found = known.labelled_at(now)
    assert real.height > 100
    assert_frame_equal(found.drop(ROW), real)
    assert split(found.drop(ROW), spec, now).equals(split(real, spec, now))
    maturity = label_maturity(spec, spine.filter(pl.col(KNOWN_AT) <= now), outcomes, now)
    assert known.maturity(now - spec.gate.holdout, now) == pytest.approx(maturity)


def test_raw_tables_of_the_lake_are_read_where_they_reach_so_far(
    trips: Project, frames: dict[str, pl.DataFrame], known: History, tmp_path: Path
) -> None:
    lake, day = Lake(str(tmp_path)), pl.col(KNOWN_AT).dt.convert_time_zone(NY).dt.date().alias(PARTITION)
    for name, rows in frames.items():
        dated = rows.with_columns(day)
        lake.replace(f"raw/{name}", dated, dated[PARTITION].unique().to_list())
    found = read_history(trips, trips.models["late"], lake, LAST)
    assert found.source == f"the raw tables in {tmp_path}"
    assert found.until >= LAST
    now = day_start(LAST, NY)
    assert_frame_equal(found.labelled_at(now), known.labelled_at(now))


def test_cohorts_are_those_of_the_performance_table(known: History, arena: Arena) -> None:
    version, name = arena.versions.at(arena.started), "of the start"
    span = Span(version=version, name=name, first=FIRST, last=LAST)
    rows = arena.history.questions[arena.rows[ROW].to_numpy()]
    answers = rows.select(
        pl.col("trip").alias("prediction_id"),
        "asked_at",
        pl.lit(name).alias("model_version"),
        pl.Series("probability", version.answers.of(arena.rows[ROW])),
    )
    told = known.outcomes.select(
        pl.col("trip").alias("prediction_id"), (pl.col("minutes_late") >= 10).cast(pl.Int64).alias("value"), KNOWN_AT
    )
    table = []
    for day in days_between(FIRST, FIRST + timedelta(days=9)):
        looked, end = first_followed(day), day_start(day + timedelta(days=1), NY)
        part = answers.filter(pl.col("asked_at").is_between(day_start(looked, NY), end, closed="left"))
        table.append(
            cohorts(part, told.filter(pl.col(KNOWN_AT) < end), NY).with_columns(pl.lit(day).alias("known_date"))
        )
        if day.day % 5 == 0:
            real, found = newest(pl.concat(table)), newest(arena.cohorts.until(day, [span]))
            assert real.height == (day - FIRST).days + 1
            assert_frame_equal(found.drop("known_date"), real.drop("known_date"))


def test_a_version_is_made_of_nothing_that_was_known_later(known: History, arena: Arena) -> None:
    now = day_start(SHIFTS_ON, NY)
    flipped = known.outcomes.with_columns(
        pl.when(pl.col(KNOWN_AT) > now)
        .then(99 - pl.col("minutes_late"))
        .otherwise("minutes_late")
        .alias("minutes_late")
    )
    other = arena_of(replace(known, outcomes=flipped), ASKED, arena.versions.folder / "other", threads=1)
    rows = arena.rows[ROW]
    assert np.array_equal(arena.versions.at(now).answers.of(rows), other.versions.at(now).answers.of(rows))


# Policies


def test_a_timer_and_random_times(arena: Arena) -> None:
    weekly = replay(every(7, WEEKLY), arena)
    assert [one.day for one in weekly.retrainings] == [date(2024, 3, 12), date(2024, 3, 19)]
    assert replay(never(), arena).retrainings == ()
    chosen = drawn(FIRST, date(2024, 5, 6), 3, grid_days=7, draws=5, seed=1)
    assert len({one.name for one in chosen}) == 5
    days = [one for one in days_between(FIRST, date(2024, 5, 6)) if ((one - FIRST).days + 1) % 7 == 0]
    assert all(len([day for day in days if _asks(one, day)]) == 3 for one in chosen)
    again = drawn(FIRST, date(2024, 5, 6), 3, grid_days=7, draws=5, seed=1)
    assert [[_asks(one, day) for day in days] for one in chosen] == [[_asks(one, day) for day in days] for one in again]


def _asks(policy: object, day: date) -> bool:
    seen = type("Seen", (), {"day": day})()
    return policy.decide(seen).answer == "retrain"  # type: ignore[attr-defined]


def test_drift_asks_once_a_cooldown(arena: Arena) -> None:
    days = days_between(FIRST, LAST)
    states = {day: Verdict(state="fail" if day >= SHIFTS_ON else "pass", reason="as it is") for day in days}
    found = replay(on_drift("inputs", {"inputs": states}, timedelta(days=3)), arena)
    # The clocks change in the first of these nights, so that three days later is an hour after midnight.
    assert [one.day.day for one in found.retrainings] == [9, 13, 16, 19]


def test_the_version_that_serves_changes_only_where_the_gate_lets_it(arena: Arena) -> None:
    found = replay(every(2, "often"), arena)
    assert {one.promoted for one in found.retrainings} == {True, False}
    versions = {arena.started: arena.versions.at(arena.started)}
    rows = arena.rows
    for one in found.retrainings:
        now = day_start(one.day + timedelta(days=1), NY)
        champion = versions[max(versions)]
        verdict = arena.gate(arena.versions.at(now), champion)
        assert (one.promoted, one.verdict) == (verdict.passed, verdict.reason)
        if one.promoted:
            versions[now] = arena.versions.at(now)
    for day in days_between(FIRST, LAST):
        own = rows.filter(pl.col("asked_on") == day)[ROW]
        serving = versions[max(at for at in versions if at <= max(day_start(day, NY), arena.started))]
        places = (rows["asked_on"] == day).to_numpy()
        assert np.array_equal(found.answers[places], serving.answers.of(own))


def test_without_a_gate_each_version_takes_over_and_knows_the_newest_rows(known: History, tmp_path: Path) -> None:
    free = arena_of(known, replace(ASKED, gated=False), tmp_path, threads=1)
    found = replay(every(2, "often"), free)
    assert all(one.promoted for one in found.retrainings)
    now = day_start(SHIFTS_ON, NY)
    assert now - free.versions.at(now).trained_until < timedelta(hours=12)
    lagging = arena_of(known, replace(ASKED, gated=False, lag_days=1), tmp_path, threads=1)
    late = replay(on([FIRST], "once"), lagging)
    first = lagging.versions.at(lagging.started)
    days = lagging.rows["asked_on"]
    is_first = late.answers == first.answers.of(lagging.rows[ROW])
    assert is_first[(days <= FIRST + timedelta(days=1)).to_numpy()].all()
    assert not is_first[(days > FIRST + timedelta(days=1)).to_numpy()].all()


def test_what_cannot_be_trained_yet_stays_wanted(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    real, when = type(arena.versions).at, FIRST + timedelta(days=4)

    def at(self: object, now: datetime) -> object:
        if arena.started < now <= day_start(when, NY):
            raise TooFewLabels("not yet")
        return real(self, now)  # type: ignore[arg-type]

    monkeypatch.setattr(type(arena.versions), "at", at)
    found = replay(on([FIRST], "once"), arena)
    assert list(found.failures) == days_between(FIRST, when - timedelta(days=1))
    assert [one.day for one in found.retrainings] == [when]
    assert found.retrainings[0].reason == f"{FIRST} was drawn"


def test_an_estimate_is_asked_of_what_the_log_would_hold(known: History, arena: Arena) -> None:
    now = day_start(SHIFTS_ON + timedelta(days=4), NY)
    version = arena.versions.at(arena.started)
    rows = log_rows(known, version.trained_until, arena.started, now)
    first = known.outcomes.filter(pl.col(KNOWN_AT) <= now).sort(KNOWN_AT).unique("trip", keep="first")
    told = {trip: late >= 10 for trip, late in first.select("trip", "minutes_late").iter_rows() if late is not None}
    asked = known.questions.filter(
        pl.col("asked_at") >= arena.started, pl.col("happens_at") < now, pl.col("trip").is_in(list(told))
    ).sort("asked_at", "trip")
    assert rows["happens_at"].to_list() == asked["happens_at"].to_list()
    assert rows["label"].to_list() == [told[trip] for trip in asked["trip"]]
    assert rows.drop("label", "label_known_at").columns == ["happens_at", *version.encoding.inputs]
    assert arena.estimate(now, version, 0.0).state == "pass"  # the world has turned
    assert arena.estimate(now, version, 5.0).state == "fail"
    policy = RetrainPolicy(window=timedelta(days=2), max_loss_ratio=1.7, min_rows=100, cooldown=timedelta(days=6))
    held = replay(by_evidence(replace(policy, estimate="holds", min_gain=5.0)), arena)
    assert held.retrainings == ()
    assert any("it would not pay" in decision.reason for decision in held.decisions.values())


# Figures


def test_gains_are_paired_and_their_intervals_go_over_days(arena: Arena) -> None:
    on_rows = judged(arena, FIRST, seed=3)
    one, other = replay(never(), arena), replay(every(2, "often"), arena)
    difference = losses_of(one, on_rows) - losses_of(other, on_rows)
    found = gain(difference, on_rows.draws)
    real = metrics.paired_gain(
        on_rows.truth,
        one.answers[on_rows.places],
        other.answers[on_rows.places],
        on_rows.days,
        seed=3,
        resamples=len(on_rows.draws.counts),
    )
    assert (found.value, found.low, found.high) == pytest.approx((real.mean, real.low, real.high))
    assert draw(on_rows.days, seed=3, resamples=2).days == (LAST - FIRST).days + 1


def test_truths_are_those_known_in_the_end(known: History, arena: Arena) -> None:
    on_rows = judged(arena, FIRST, seed=3)
    last = known.outcomes.sort(KNOWN_AT).unique("trip", keep="last")
    keys = known.questions["trip"].gather(arena.rows[ROW].gather(on_rows.places))
    late = dict(last.select("trip", pl.col("minutes_late") >= 10).iter_rows())
    assert on_rows.truth.tolist() == [float(late[key]) for key in keys]


def test_everything_together(trips: Project, known: History, arena: Arena, tmp_path: Path) -> None:
    declared = declared_for(trips, trips.models["late"])
    assert declared.policy is not None
    assert list(declared.drifts) == ["inputs"]
    asked = replace(ASKED, varied=varied(declared.policy, ["max_loss_ratio=1.7,50", "cooldown=2"]), timers=(5,))
    found = backtest(known, declared, asked, arena.versions.folder, threads=1)
    names = [one.name for one in found.outcomes]
    other = ["max_loss_ratio=1.7 cooldown=2", "max_loss_ratio=50.0 cooldown=2"]
    assert names == [NEVER, WEEKLY, TIMER, "every 5 days", "drift", DECLARED, *other, RANDOM]
    same, deaf, mine = found.of(other[0]), found.of(other[1]), found.of(DECLARED)
    assert mine is not None
    assert same is not None
    assert deaf is not None
    assert (mine.log_loss, mine.retrainings) == (same.log_loss, same.retrainings)
    assert (deaf.log_loss, deaf.retrainings) == (found.outcomes[0].log_loss, ())
    assert mine.log_loss < found.outcomes[0].log_loss
    assert mine.against[NEVER].low > 0
    assert mine.all[0].day == SHIFTS_ON
    assert found.drawn
    assert min(found.drawn) <= found.outcomes[-1].log_loss <= max(found.drawn)
    part = found.again(SHIFTS_ON)
    assert part.rows < found.rows
    assert part.days[0] == SHIFTS_ON


def test_the_days_that_cannot_be_had_are_refused(known: History, trips: Project, tmp_path: Path) -> None:
    declared = declared_for(trips, trips.models["late"])
    for change in ({"last": date(2024, 4, 20)}, {"since": date(2024, 1, 1)}, {"first": date(2024, 3, 19)}):
        with pytest.raises(DeclarationError, match=r"until another up to 2024-03-20"):
            backtest(known, declared, replace(ASKED, **change), tmp_path, threads=1)  # type: ignore[arg-type]
    early = replace(ASKED, first=date(2024, 2, 29), since=date(2024, 2, 29))
    with pytest.raises(TooFewLabels, match="model late has"):
        backtest(known, declared, early, tmp_path, threads=1)
    with pytest.raises(TooFewLabels, match="a backtest needs two days"):
        backtest(known, declared, replace(ASKED, since=LAST), tmp_path, threads=1)


# What is kept


def test_a_version_is_trained_once_and_only_again_when_what_it_was_made_of_changes(
    known: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replay(every(5, "five"), arena_of(known, ASKED, tmp_path, threads=1))
    trained = []
    real = backtest_versions.train
    monkeypatch.setattr(
        backtest_versions, "train", lambda spec, rows, **more: trained.append(rows.height) or real(spec, rows, **more)
    )
    (tmp_path / "draft-of-one-that-was-killed").mkdir()
    again = replay(every(5, "five"), arena_of(known, ASKED, tmp_path, threads=1))
    assert trained == []
    assert np.array_equal(first.answers, again.answers)
    assert again.retrainings == first.retrainings
    # A truth of the 12th is corrected on the 16th: what was trained before does not know.
    changed = known.outcomes.filter(pl.col("trip").str.starts_with("20240312")).with_columns(
        pl.lit(99, pl.Int64).alias("minutes_late"), pl.lit(day_start(date(2024, 3, 16), NY)).alias(KNOWN_AT)
    )
    other = replace(known, outcomes=pl.concat([known.outcomes, changed]))
    replay(every(5, "five"), arena_of(other, ASKED, tmp_path, threads=1))
    assert len(trained) == 1
    longer = replace(known, spec=replace(known.spec, parameters={**known.spec.parameters, "num_leaves": 3}))
    replay(never(), arena_of(longer, ASKED, tmp_path, threads=1))
    assert len(trained) == 2
