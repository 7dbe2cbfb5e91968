"""Whether to retrain: every branch and its sentence."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from ml_platform.decisions.past import Past, Review, Trained
from ml_platform.decisions.retraining import decide
from ml_platform.monitoring.performance import COLUMNS
from ml_platform.spec import Verdict
from ml_platform_tests.decision_world import (
    CHAMPION,
    FIRST,
    NEW_YORK,
    POLICY,
    STANDS,
    asked,
    cohort,
    days,
    fact,
    midnight,
)

# Losses on late labels


def test_without_a_champion() -> None:
    found = asked([], 5, past=Past(champion=None))
    assert (found.answer, found.reason) == ("unknown", "there is no champion yet, so nothing can be judged")


@pytest.mark.parametrize("served", [0, 1, 3])
def test_too_few_days(served: int) -> None:
    found = asked(days(*[0.4] * served), served)
    assert found.answer == "unknown"
    assert found.reason.startswith(f"version 4 served {served} day{'' if served == 1 else 's'} until ")
    assert found.reason.endswith("its first 3 are what later ones are compared with")


def test_a_champion_that_serves_only_from_tomorrow() -> None:
    found = asked([], 1, past=Past(champion=replace(CHAMPION, first_day=FIRST + timedelta(days=1))))
    assert (found.answer, found.measures["days_served"]) == ("unknown", 0)


def test_no_label_at_all() -> None:
    found = asked(days(0, 0, 0, 0, mature=0), 4)
    assert (found.answer, found.reason) == ("unknown", "version 4's first 3 days have no label")


def test_labels_that_stopped() -> None:
    found = asked([*days(0.4, 0.4, 0.4), *(cohort(n, 0, mature=0) for n in range(3, 12))], 12)
    assert (found.answer, found.reason) == ("unknown", "version 4's newest 3 days until 2024-03-12 have no label")


def test_days_without_answers_at_all() -> None:
    found = asked(days(0.4, 0.4, 0.4), 12)
    assert (found.answer, found.reason) == ("unknown", "version 4's newest 3 days until 2024-03-12 have no label")


def test_an_immature_first_window() -> None:
    found = asked([*days(0.4, 0.4), cohort(2, mature=0.5), cohort(3)], 4)
    assert found.answer == "unknown"
    assert found.reason == "of the truths of version 4's first 3 days 83% arrived; 90% are needed"


def test_an_immature_newest_window() -> None:
    found = asked([*days(0.4, 0.4, 0.4), cohort(3, 9.0, mature=0.5)], 4)
    assert found.answer == "unknown"
    assert found.reason == "of the truths of version 4's newest 3 days 83% arrived; 90% are needed"


def test_too_few_labels() -> None:
    found = asked(days(*[0.4] * 6, answers=33), 6)
    assert (found.answer, found.reason) == ("unknown", "version 4's first 3 days have 99 labels; 100 are needed")


def test_borne_up_to_the_limit() -> None:
    found = asked(days(0.5, 0.5, 0.5, 0.6, 0.6, 0.6), 20 and 6)
    assert found.answer == "wait"
    assert found.reason == (
        "late labels: log-loss 0.6000 on 2024-03-04 to 2024-03-06 (150 labels), 1.20 times version 4's first 3 days "
        "(0.5000 from 2024-03-01); up to 1.2 is borne"
    )
    assert found.measures["ratio"] == 1.2


def test_cooldown() -> None:
    found = asked(days(0.4, 0.4, 0.4, 0.6, 0.6, 0.6), 6)
    assert found.answer == "wait"
    assert found.reason.endswith("; more than 1.2, but the cooldown of 10 days lasts 3 more")


@pytest.mark.parametrize(("served", "answer"), [(8, "wait"), (9, "retrain")])
def test_the_cooldown_ends_on_its_last_day(served: int, answer: str) -> None:
    found = asked(days(0.4, 0.4, 0.4, *[0.6] * (served - 3)), served)
    assert found.answer == answer
    assert (" lasts 1 more" in found.reason) == (answer == "wait")


def test_the_cooldown_counts_from_a_training_that_was_refused() -> None:
    refused = replace(CHAMPION, last_training_at=CHAMPION.trained_at + timedelta(days=9))
    assert asked(days(0.4, 0.4, 0.4, *[0.6] * 9), 12, past=Past(champion=refused)).answer == "wait"


def test_retrain() -> None:
    found = asked(days(0.4, 0.4, 0.4, *[0.6] * 9), 12)
    assert found.answer == "retrain"
    assert found.reason == (
        "late labels: log-loss 0.6000 on 2024-03-10 to 2024-03-12 (150 labels), 1.50 times version 4's first 3 days "
        "(0.4000 from 2024-03-01); more than 1.2"
    )


def test_the_window_moves_back_to_a_mature_one_but_not_far() -> None:
    history = days(0.4, 0.4, 0.4, *[0.6] * 9)
    late = [*history[:-2], *(cohort(n, 0.1, mature=0.2) for n in (10, 11))]
    assert "on 2024-03-08 to 2024-03-10" in asked(late, 12).reason
    later = [*history[:-4], *(cohort(n, 0.1, mature=0.2) for n in range(8, 12))]
    assert asked(later, 12).answer == "unknown"


def test_only_the_champions_own_answers_count() -> None:
    others = [cohort(n, 9.0, version=version) for n in range(-5, 12) for version in ("3", "5")]
    assert asked([*days(*[0.4] * 12), *others], 12).answer == "wait"


def test_the_deadline_needs_no_labels_but_keeps_the_cooldown() -> None:
    policy = replace(POLICY, deadline=timedelta(days=30))
    assert asked([], 29, policy).answer == "unknown"  # clocks change in between: 29 days and 23 hours
    found = asked([], 30, policy)
    assert (found.answer, found.reason) == ("retrain", "version 4 is 30 days old; the policy's deadline is 30 days")
    # A training for the deadline whose version the gate refused must not be repeated every day.
    refused = replace(CHAMPION, last_training_at=CHAMPION.trained_at + timedelta(days=30))
    found = asked([], 30, policy, Past(champion=refused))
    assert found.answer == "wait"
    assert found.reason.endswith("the policy's deadline is 30 days, but the cooldown of 10 days lasts 10 more")


@pytest.mark.parametrize("apart", [1, 3])
@pytest.mark.parametrize(("bad", "of"), [(1, 1), (2, 3), (3, 3)])
def test_some_of_the_last_windows_and_the_latest(bad: int, of: int, apart: int) -> None:
    policy = replace(POLICY, bad=bad, of=of, apart=timedelta(days=apart), cooldown=timedelta(days=1))
    draw, answers = np.random.default_rng(3), []
    for _ in range(40):
        losses = draw.choice([0.4, 0.6], 14, p=[0.6, 0.4]).tolist()
        windows = [sum(losses[n : n + 3]) / sum(losses[:3]) > 1.2 for n in range(11, 0, -apart)][:of]
        expected = "retrain" if windows[0] and sum(windows) >= bad else "wait"
        assert asked(days(*losses), 14, policy).answer == expected, losses
        answers.append(expected)
    assert set(answers) == {"retrain", "wait"}


def test_too_few_bad_windows_are_told() -> None:
    policy = replace(POLICY, bad=2, of=3)
    found = asked(days(*[0.4] * 9, 0.8), 10, policy)
    assert found.reason.endswith("; 1 of the last 3 windows are above 1.2; 2 of 3 are too many")
    assert found.measures["bad_windows"] == 1


def test_windows_are_compared_at_the_same_age() -> None:
    """Late truths are bad ones: known in full, the first window has twice the loss that it had on its last evening."""
    looks = [
        {**cohort(n, loss, mature=mature), "known_date": FIRST + timedelta(days=n + age)}
        for n in range(9)
        for age, loss, mature in ((0, 0.2, 0.92), (1, 0.4, 1.0))
        if n + age < 9
    ]
    frame = pl.DataFrame(looks, schema={**COLUMNS, "known_date": pl.Date})
    day = FIRST + timedelta(days=8)
    found = decide(POLICY, frame, STANDS, day, midnight(9), NEW_YORK)
    assert (found.answer, found.measures["ratio"]) == ("wait", 1.0)
    worse = frame.with_columns(loss_sum=pl.when(pl.col("cohort") == day).then(30.0).otherwise("loss_sum"))
    assert decide(POLICY, worse, STANDS, day, midnight(9), NEW_YORK).measures["ratio"] == 1.4228


# Time


def test_a_fixed_timetable() -> None:
    policy = replace(POLICY, max_loss_ratio=None, cooldown=timedelta(0), every=timedelta(days=14))
    trained = Past(champion=CHAMPION, trainings=(Trained(version="4", at=midnight(0), outcome="promoted"),))
    assert asked([], 13, policy, trained).answer == "wait"
    found = asked([], 14, policy, trained)
    assert (found.answer, found.reason) == ("retrain", "the last training began 14 days ago; every 14 days one is due")
    assert asked([], 20, policy, replace(trained, spared_at=midnight(14))).answer == "wait"
    assert asked([], 28, policy, replace(trained, spared_at=midnight(14))).answer == "retrain"


def test_a_cron_is_caught_up_with_whenever_somebody_looks() -> None:
    policy = replace(POLICY, max_loss_ratio=None, cooldown=timedelta(0), cron="0 6 * * 1")  # 4 March is a Monday
    trained = Past(champion=CHAMPION, trainings=(Trained(version="4", at=midnight(0), outcome="promoted"),))
    assert asked([], 3, policy, trained).answer == "wait"
    for late in (4, 5, 9):
        found = asked([], late, policy, trained)
        assert (found.answer, found.reason) == ("retrain", "the timetable (0 6 * * 1) came up on 2024-03-04 11:00 UTC")
    answered = replace(trained, trainings=(*trained.trainings, Trained(version="5", at=midnight(9))))
    assert asked([], 9, policy, answered).answer == "wait"


def test_a_training_that_began_before_the_tick_does_not_answer_it() -> None:
    policy = replace(POLICY, max_loss_ratio=None, cooldown=timedelta(0), cron="0 6 * * 1")
    long_one = Trained(version="5", since=midnight(3), at=midnight(5))
    assert asked([], 5, policy, Past(champion=CHAMPION, trainings=(long_one,))).answer == "retrain"


# What happened once


def test_declared_drift_asks_and_waits_for_the_cooldown() -> None:
    policy, drifted = replace(POLICY, triggers=("inputs",)), replace(STANDS, facts=(fact("drift"),))
    found = asked(days(*[0.4] * 12), 12, policy, drifted)
    assert (found.answer, found.reason) == ("retrain", "drift/inputs failed: miles moved")
    held = asked(days(*[0.4] * 6), 6, policy, drifted)
    assert (held.answer, held.reason) == (
        "wait",
        "drift/inputs failed: miles moved, but the cooldown of 10 days lasts 3 more",
    )
    assert [one.line for one in held.asked] == [7]


def test_drift_that_is_not_declared_asks_for_nothing() -> None:
    assert asked(days(*[0.4] * 12), 12, POLICY, replace(STANDS, facts=(fact("drift"),))).answer == "wait"


def test_a_review_waits_for_a_person() -> None:
    review = Review(line=9, at=midnight(4), drift="drift/inputs", reason="miles moved")
    found = asked(days(*[0.4] * 12), 12, POLICY, replace(STANDS, reviews=(review,)))
    assert found.answer == "wait"
    assert found.reason.endswith(
        "; drift/inputs drifted, which no policy answers: whether to retrain on it waits for `ml-platform approve "
        "MODEL --drift 9` (or `reject`)"
    )
    later = replace(review, line=12)
    found = asked(days(*[0.4] * 12), 12, POLICY, replace(STANDS, reviews=(review, later)))
    assert found.reason.endswith("waits for `ml-platform approve MODEL --drift 9` (or 12, or `reject`)")
    assert found.reason.count("no policy answers") == 1


def test_a_ratio_is_told_to_the_digit_that_shows_its_side_of_the_limit() -> None:
    found = asked(days(*[0.4] * 7, *[0.4809] * 7), 14, POLICY, STANDS)
    assert "1.202 times" in found.reason


@pytest.mark.parametrize("kind", ["request", "review"])
def test_a_person_waits_for_nothing(kind: str) -> None:
    failed = tuple(Trained(version=str(n), at=midnight(n), outcome="ended", decision=n) for n in range(1, 5))
    policy = replace(POLICY, budget=1, breaker=2, estimate="holds")
    past = Past(champion=CHAMPION, trainings=failed, facts=(fact(kind, name="Ada"),))

    def never() -> Verdict:
        raise AssertionError("nothing hangs on it")

    found = asked([], 5, policy, past, never)
    assert found.answer == "retrain"
    assert found.reason.startswith("Ada ")
    assert {rest.kind for rest in found.held} == {"cooldown", "budget", "breaker"}


def test_without_a_champion_a_person_can_still_ask() -> None:
    assert asked([], 5, past=Past(champion=None, facts=(fact("request", name="Ada"),))).answer == "retrain"


def test_another_declaration() -> None:
    past = Past(
        champion=CHAMPION,
        trainings=(Trained(version="4", at=midnight(0), outcome="promoted", declared="old"),),
        declared="new",
    )
    found = asked(days(*[0.4] * 2), 2, past=past)
    assert (found.answer, found.reason) == (
        "retrain",
        "the model, its task or its views are declared otherwise than when version 4 was trained",
    )
    assert asked(days(*[0.4] * 2), 2, replace(POLICY, on_change=False), past).answer == "unknown"
    refused = Trained(version="5", at=midnight(1), outcome="ended", declared="new")
    assert asked(days(*[0.4] * 2), 2, past=replace(past, trainings=(*past.trainings, refused))).answer == "unknown"
