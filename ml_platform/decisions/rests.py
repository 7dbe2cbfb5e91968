"""What holds a retraining back that something asks for: the cooldown, the budget, the breaker."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ml_platform.decisions.past import Past, Trained
from ml_platform.spec import RetrainPolicy

RestKind = Literal["cooldown", "budget", "breaker", "estimate"]


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Why not now, and until when (None: until somebody does something, which the reason names)."""

    kind: RestKind
    reason: str
    until: datetime | None = None


def rests(policy: RetrainPolicy, past: Past, now: datetime) -> list[Rest]:
    """Everything that would hold a retraining back now."""
    return [
        rest for rest in (_cooldown(policy, past, now), _budget(policy, past, now), _breaker(policy, past, now)) if rest
    ]


def _cooldown(policy: RetrainPolicy, past: Past, now: datetime) -> Rest | None:
    """It counts from the last training, also one that the gate refused."""
    last = max((one.at for one in past.trainings), default=None)
    if last is None and past.champion is not None:
        last = past.champion.last_training_at
    if last is None or last + policy.cooldown <= now:
        return None
    until = last + policy.cooldown
    days_left = -(-(until - now) // timedelta(days=1))
    return Rest(
        kind="cooldown", reason=f"the cooldown of {in_days(policy.cooldown)} lasts {days_left} more", until=until
    )


def _budget(policy: RetrainPolicy, past: Past, now: datetime) -> Rest | None:
    """Trainings that a decision asked for, whatever came of them."""
    if policy.budget is None:
        return None
    spent = sorted(one.at for one in past.trainings if one.decision and one.at > now - policy.budget_time)
    if len(spent) < policy.budget:
        return None
    until = spent[-policy.budget] + policy.budget_time
    reason = (
        f"the budget of {_times(policy.budget)} in {in_days(policy.budget_time)} is spent until {until:%Y-%m-%d %H:%M} "
        f"UTC"
    )
    return Rest(kind="budget", reason=reason, until=until)


def _breaker(policy: RetrainPolicy, past: Past, now: datetime) -> Rest | None:
    vain = in_vain(past)
    if policy.breaker is None or len(vain) < policy.breaker:
        return None
    until = None if policy.breaker_rest is None else vain[-1].at + policy.breaker_rest
    if until is not None and until <= now:
        return None  # one is tried; if it is in vain, too, this holds again from then on
    of_itself = "" if until is None else f"by itself on {until:%Y-%m-%d}, or earlier "
    reason = (
        f"the breaker is open: {_times(len(vain))} in a row (version{'s' * (len(vain) > 1)} "
        f"{', '.join(one.version for one in vain)}) nothing was promoted; it closes {of_itself}by another declaration "
        f"of the model or by `ml-platform retrain`"
    )
    return Rest(kind="breaker", reason=reason, until=until)


def in_vain(past: Past) -> list[Trained]:
    """The trainings in a row that did not bring a champion, oldest first; one that is not judged yet does not count.

    A promotion, a person who asked for a retraining, and another declaration begin anew.
    """
    found: list[Trained] = []
    for one in reversed(past.trainings):
        is_old = one.heard < past.reset_line
        is_other = None not in (one.declared, past.declared) and one.declared != past.declared
        if one.outcome == "promoted" or is_old or is_other:
            break
        if one.outcome == "ended":
            found.append(one)
    return found[::-1]


def _times(count: int) -> str:
    return {1: "one retraining", 2: "two retrainings", 3: "three retrainings"}.get(count, f"{count} retrainings")


def in_days(span: timedelta) -> str:
    """A span in words."""
    if span % timedelta(days=1):
        return f"{span.total_seconds() / 3600:g} hours"
    return "one day" if span.days == 1 else f"{span.days} days"
