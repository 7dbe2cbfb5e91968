"""What holds a retraining back, who lets it go on, and declarations that cannot be meant."""

from dataclasses import replace
from datetime import timedelta

import pytest

from ml_platform.decisions.past import Past, Trained
from ml_platform.spec import Verdict
from ml_platform_tests.decision_world import CHAMPION, POLICY, STANDS, asked, days, fact, midnight

# What holds back

BAD = days(0.4, 0.4, 0.4, *[0.6] * 40)


def test_the_budget() -> None:
    policy = replace(POLICY, cooldown=timedelta(days=1), budget=2, budget_time=timedelta(days=30))
    spent = tuple(Trained(version=str(n), at=midnight(n), outcome="promoted", decision=n) for n in (2, 10))
    free = Trained(version="11", at=midnight(11), outcome="promoted")  # nobody decided on it
    past = Past(champion=CHAMPION, trainings=(*spent, free))
    held = asked(BAD, 31, policy, past)
    assert held.answer == "wait"
    assert held.reason.endswith("the budget of two retrainings in 30 days is spent until 2024-04-02 05:00 UTC")
    assert held.held[0].until == midnight(2) + timedelta(days=30)
    assert asked(BAD, 33, policy, past).answer == "retrain"


def vain(*outcomes: str) -> tuple[Trained, ...]:
    return tuple(
        Trained(version=str(n), at=midnight(n), outcome=outcome, decision=n, heard=n, declared="d")  # type: ignore[arg-type]
        for n, outcome in enumerate(outcomes, start=1)
    )


@pytest.mark.parametrize(
    ("outcomes", "is_open"),
    [
        (("ended", "ended"), False),
        (("ended", "ended", "ended"), True),
        (("ended", "promoted", "ended", "ended"), False),
        (("promoted", "ended", "ended", "ended"), True),
        (("ended", "ended", "open"), False),
        (("ended", "ended", "ended", "open"), True),
    ],
)
def test_the_breaker(outcomes: tuple[str, ...], is_open: bool) -> None:
    policy = replace(POLICY, cooldown=timedelta(days=1), breaker_rest=None)
    found = asked(BAD, 30, policy, Past(champion=CHAMPION, trainings=vain(*outcomes)))
    assert (found.answer == "wait") == is_open
    assert ("three retrainings in a row (versions" in found.reason) == is_open


def test_who_closes_the_breaker() -> None:
    policy = replace(POLICY, cooldown=timedelta(days=1), breaker_rest=timedelta(days=20))
    broken = Past(champion=CHAMPION, trainings=vain("ended", "ended", "ended"), declared="d")
    held = asked(BAD, 22, policy, broken)
    assert held.answer == "wait"
    assert held.reason.endswith(
        "but the breaker is open: three retrainings in a row (versions 1, 2, 3) nothing was promoted; it closes by "
        "itself on 2024-03-24, or earlier by another declaration of the model or by `ml-platform retrain`"
    )
    assert asked(BAD, 24, policy, broken).answer == "retrain"  # rested
    assert asked(BAD, 22, policy, replace(broken, reset_line=4)).answer == "retrain"  # a person asked meanwhile
    assert asked(BAD, 22, policy, replace(broken, reset_line=1)).answer == "wait"  # before all three
    assert asked(BAD, 22, policy, replace(broken, declared="e")).answer == "retrain"
    # The one that is tried after the rest was in vain, too.
    again = Trained(version="4", at=midnight(23), outcome="ended", decision=4, heard=4, declared="d")
    assert asked(BAD, 30, policy, replace(broken, trainings=(*broken.trainings, again))).answer == "wait"


# The estimate

GAINS = Verdict(state="pass", reason="a refit gains .01", measures={"estimated_gain": 0.01})
VAIN = Verdict(state="fail", reason="a refit gains nothing", measures={"estimated_gain": -0.01})
NO_ROWS = Verdict.unknown("no fresh rows")


@pytest.mark.parametrize(
    ("mode", "found", "answer"),
    [
        ("holds", GAINS, "retrain"),
        ("holds", VAIN, "wait"),
        ("holds", NO_ROWS, "retrain"),
        ("told", VAIN, "retrain"),
        ("off", VAIN, "retrain"),
    ],
)
def test_no_gain_no_retraining_said_so(mode: str, found: Verdict, answer: str) -> None:
    policy = replace(POLICY, estimate=mode)  # type: ignore[arg-type]
    decision = asked(BAD, 12, policy, estimate=lambda: found)
    assert decision.answer == answer
    assert (found.reason in decision.reason) == (mode != "off")
    assert ("estimated_gain" in decision.measures) == (mode != "off" and found is not NO_ROWS)


def test_the_estimate_is_made_only_where_the_answer_hangs_on_it() -> None:
    made: list[int] = []

    def estimate() -> Verdict:
        made.append(1)
        return VAIN

    policy = replace(POLICY, estimate="holds", deadline=timedelta(days=20))
    asked(days(*[0.4] * 12), 12, policy, estimate=estimate)  # nothing asks
    asked(BAD, 6, policy, estimate=estimate)  # the cooldown holds
    asked(BAD, 12, policy, replace(STANDS, wanted=1), estimate)  # it is wanted already
    assert asked(BAD, 25, policy, estimate=estimate).answer == "retrain"  # the deadline holds in any case
    assert made == []
    asked(BAD, 12, policy, estimate=estimate)
    assert made == [1]


def test_drift_in_which_there_is_nothing_to_gain_asks_for_a_while() -> None:
    policy = replace(POLICY, triggers=("inputs",), estimate="holds", patience=timedelta(days=5))
    drifted = replace(STANDS, facts=(fact("drift", 6),))
    quiet = days(*[0.4] * 20)
    assert asked(quiet, 10, policy, drifted, lambda: VAIN).spares == ()
    assert asked(quiet, 12, policy, drifted, lambda: VAIN).spares == (7,)
    assert asked(quiet, 12, policy, drifted, lambda: GAINS).spares == ()


def test_a_tick_in_which_there_is_nothing_to_gain_is_let_go() -> None:
    policy = replace(POLICY, max_loss_ratio=None, every=timedelta(days=10), estimate="holds")
    assert asked([], 10, policy, estimate=lambda: VAIN).spares_time
    assert not asked([], 10, policy, estimate=lambda: GAINS).spares_time


# Declarations that cannot be meant


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bad": 3, "of": 2}, "bad=3 of=2 windows can never be"),
        ({"window": timedelta(hours=36)}, "it has the window 1 day, 12:00:00; it is judged by whole days"),
        ({"every": timedelta(days=3)}, "is shorter than the cooldown of 10 days, 0:00:00"),
        ({"cron": "0 6 * *"}, "has 4 fields; write five"),
        ({"cron": "0 25 * * *"}, "'25' is no hour (0 to 23"),
        ({"cron": "0 0 30 2 *"}, "never comes up"),
        ({"budget": 0}, "budget=0 is no limit"),
        ({"breaker": 0}, "breaker=0 is no limit"),
        ({"estimate": "maybe"}, "estimate=maybe is no limit"),
        ({"max_loss_ratio": float("nan")}, "max_loss_ratio=nan is no limit"),
    ],
)
def test_what_cannot_be_meant_is_said(changes: dict[str, object], says: str) -> None:
    assert POLICY.problems() == []
    assert says in "; ".join(replace(POLICY, **changes).problems())  # type: ignore[arg-type]
