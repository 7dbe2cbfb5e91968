"""What asks for a retraining: a person, a change, drift, time, age, losses on late labels.

Losses and age are states: they ask as long as they are so, and a day on which they are not, they no longer do. What
happened once (a person's word, drift, a tick of the timetable) asks until a training that began after it is registered.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from ml_platform.decisions.past import Fact, Past
from ml_platform.decisions.rests import RestKind, in_days
from ml_platform.decisions.windows import Losses
from ml_platform.spec import RetrainPolicy
from ml_platform.spec.cron import last_tick

Kind = Literal["request", "review", "change", "drift", "schedule", "deadline", "losses"]
# What a trigger does not wait for. A person has thought of it; a new declaration is nobody's failure yet; a deadline
# holds in any case.
PASSES: Mapping[Kind, tuple[RestKind, ...]] = {
    "request": ("cooldown", "budget", "breaker", "estimate"),
    "review": ("cooldown", "budget", "breaker", "estimate"),
    "change": ("cooldown", "breaker", "estimate"),
    "deadline": ("estimate",),
}


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """What asks, since when, in words; line: of the ledger, where it stands there (0: nowhere)."""

    kind: Kind
    since: datetime
    reason: str
    line: int = 0
    measures: Mapping[str, float | int | str] = field(default_factory=dict)


def triggers(policy: RetrainPolicy, past: Past, losses: Losses | None, now: datetime, timezone: str) -> list[Trigger]:
    """Everything that asks for a retraining now. losses: None where they ask for nothing."""
    found = [_of_fact(fact) for fact in past.facts if fact.kind != "drift" or fact.name in policy.triggers]
    found += [one for one in (_change(policy, past, now), *_time(policy, past, now, timezone)) if one]
    found += _deadline(policy, past, now)
    if losses is not None and losses.state == "bad":
        found.append(Trigger(kind="losses", since=now, reason=losses.reason, measures=losses.measures))
    return found


def _of_fact(fact: Fact) -> Trigger:
    words = {
        "request": f"{fact.name} asked for it on {fact.at:%Y-%m-%d}: {fact.reason}",
        "review": f"{fact.name} said on {fact.at:%Y-%m-%d} that drift is a reason to retrain: {fact.reason}",
        "drift": f"drift/{fact.name} failed: {fact.reason}",
    }
    return Trigger(kind=fact.kind, since=fact.at, reason=words[fact.kind], line=fact.line)


def _change(policy: RetrainPolicy, past: Past, now: datetime) -> Trigger | None:
    last = past.outdated
    if not policy.on_change or last is None:
        return None
    reason = f"the model, its task or its views are declared otherwise than when version {last.version} was trained"
    return Trigger(kind="change", since=now, reason=reason)


def _time(policy: RetrainPolicy, past: Past, now: datetime, timezone: str) -> Iterator[Trigger]:
    """One that was found to gain nothing is let go; the next tick asks again."""
    began = max((one.began for one in past.trainings), default=None)
    if began is None and past.champion is not None:
        began = past.champion.last_training_at
    looked = max((at for at in (began, past.spared_at) if at is not None), default=None)
    if looked is None or began is None:
        return
    if policy.every is not None and _local(now, timezone) - _local(looked, timezone) >= policy.every:
        days = (_local(now, timezone) - _local(began, timezone)).days
        reason = f"the last training began {days} days ago; every {in_days(policy.every)} one is due"
        yield Trigger(kind="schedule", since=looked + policy.every, reason=reason)
    tick = last_tick(policy.cron, now, timezone) if policy.cron is not None else None
    if tick is not None and tick > looked:
        reason = f"the timetable ({policy.cron}) came up on {tick:%Y-%m-%d %H:%M} UTC"
        yield Trigger(kind="schedule", since=tick, reason=reason)


def _local(moment: datetime, timezone: str) -> datetime:
    """As the wall shows it: a week is one, also where clocks change in between."""
    return moment.astimezone(ZoneInfo(timezone)).replace(tzinfo=None)


def _deadline(policy: RetrainPolicy, past: Past, now: datetime) -> list[Trigger]:
    champion = past.champion
    if champion is None or policy.deadline is None or now - champion.trained_at < policy.deadline:
        return []
    age = (now - champion.trained_at).days
    reason = f"version {champion.version} is {age} days old; the policy's deadline is {in_days(policy.deadline)}"
    measures: dict[str, float | int | str] = {"version": champion.version, "age_days": age}
    return [Trigger(kind="deadline", since=champion.trained_at + policy.deadline, reason=reason, measures=measures)]
