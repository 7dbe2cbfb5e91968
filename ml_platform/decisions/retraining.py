"""Whether a model is trained again, and why (or why not), from late labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

import polars as pl

from ml_platform.monitoring.performance import COHORT
from ml_platform.spec import RetrainPolicy

Answer = Literal["retrain", "wait", "unknown"]
# The newest days have few labels yet; the judged window is moved back at most this far to find a mature one.
_LOOK_BACK_DAYS = 3


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer, the sentence that explains it, and the numbers behind it."""

    answer: Answer
    reason: str
    measures: Mapping[str, float | int | str]


@dataclass(frozen=True, kw_only=True)
class Served:
    """The champion: its version, the first local day it served in full, and when it was trained.

    ``last_training_at`` is that of the newest version, which the gate may have refused.
    """

    version: str
    first_day: date
    trained_at: datetime
    last_training_at: datetime


@dataclass(frozen=True, kw_only=True)
class _Loss:
    first: date
    last: date
    log_loss: float
    labelled: int
    maturity: float


def decide(policy: RetrainPolicy, cohorts: pl.DataFrame, champion: Served | None, day: date, now: datetime) -> Decision:
    """Compare the champion's newest mature window of days with its first.

    cohorts: one row a day of asking and model version (``monitoring.performance.cohorts``), each as last looked at.
    day: the last closed local day; ``now``: the platform's time.
    """
    if champion is None:
        return Decision(answer="unknown", reason="there is no champion yet, so nothing can be judged", measures={})
    if policy.deadline and now - champion.trained_at >= policy.deadline:
        age = (now - champion.trained_at).days
        found = f"version {champion.version} is {age} days old; the policy's deadline is {policy.deadline.days} days"
        return _resting(policy, champion, now, found, {"version": champion.version, "age_days": age})
    own = cohorts.filter(pl.col("model_version") == champion.version)
    span = policy.window.days
    reference = _loss(own, champion.first_day, span)
    unready = _unready(reference, "first", champion, day, policy)
    if unready:
        return unready
    current = _newest_mature(own, champion, day, policy)
    unready = _unready(current, "newest", champion, day, policy)
    if unready:
        return unready
    assert reference is not None
    assert current is not None
    return _compare(policy, champion, reference, current, now)


def _loss(cohorts: pl.DataFrame, first: date, span_days: int) -> _Loss | None:
    last = first + timedelta(days=span_days - 1)
    window = cohorts.filter(pl.col(COHORT).is_between(first, last))
    labelled = int(window["labelled"].sum())
    if not labelled:
        return None
    return _Loss(
        first=first,
        last=last,
        log_loss=float(window["loss_sum"].sum()) / labelled,
        labelled=labelled,
        maturity=int(window["resolved"].sum()) / int(window["answered"].sum()),
    )


def _newest_mature(own: pl.DataFrame, champion: Served, day: date, policy: RetrainPolicy) -> _Loss | None:
    span, found = policy.window.days, None
    for back in range(_LOOK_BACK_DAYS + 1):
        first = day - timedelta(days=back + span - 1)
        if first <= champion.first_day:
            break
        found = _loss(own, first, span) or found
        if found and found.maturity >= policy.min_maturity:
            return found
    return found


def _unready(loss: _Loss | None, which: str, champion: Served, day: date, policy: RetrainPolicy) -> Decision | None:
    """Why this window cannot be judged yet, if it cannot."""
    served = max((day - champion.first_day).days + 1, 0)
    measures: dict[str, float | int | str] = {"days_served": served, "version": champion.version}
    if served <= policy.window.days:
        reason = (
            f"version {champion.version} served {served} days until {day}; its first {policy.window.days} are what "
            f"later ones are compared with"
        )
        return Decision(answer="unknown", reason=reason, measures=measures)
    whose = f"version {champion.version}'s {which} {policy.window.days} days"
    if loss is None:
        reason = f"{whose} until {day} have no label" if which == "newest" else f"{whose} have no label"
        return Decision(answer="unknown", reason=reason, measures=measures)
    measures |= {"labelled": loss.labelled, "maturity": round(loss.maturity, 4)}
    if loss.maturity < policy.min_maturity:
        reason = f"of the truths of {whose} {loss.maturity:.0%} arrived; {policy.min_maturity:.0%} are needed"
        return Decision(answer="unknown", reason=reason, measures=measures)
    if loss.labelled < policy.min_rows:
        reason = f"{whose} have {loss.labelled} labels; {policy.min_rows} are needed"
        return Decision(answer="unknown", reason=reason, measures=measures)
    return None


def _compare(policy: RetrainPolicy, champion: Served, reference: _Loss, current: _Loss, now: datetime) -> Decision:
    ratio = current.log_loss / reference.log_loss
    measures: dict[str, float | int | str] = {
        "version": champion.version,
        "log_loss": round(current.log_loss, 5),
        "reference_log_loss": round(reference.log_loss, 5),
        "ratio": round(ratio, 4),
        "labelled": current.labelled,
        "maturity": round(current.maturity, 4),
    }
    found = (
        f"late labels: log-loss {current.log_loss:.4f} on {current.first} to {current.last} ({current.labelled} "
        f"labels), {ratio:.2f} times version {champion.version}'s first {policy.window.days} days "
        f"({reference.log_loss:.4f} from {reference.first})"
    )
    if ratio <= policy.max_loss_ratio:
        return Decision(answer="wait", reason=f"{found}; up to {policy.max_loss_ratio} is borne", measures=measures)
    return _resting(policy, champion, now, f"{found}; more than {policy.max_loss_ratio}", measures)


def _resting(
    policy: RetrainPolicy, champion: Served, now: datetime, found: str, measures: Mapping[str, float | int | str]
) -> Decision:
    """Retrain, unless the last training, which the gate may have refused, is too recent."""
    rest = champion.last_training_at + policy.cooldown - now
    if rest <= timedelta(0):
        return Decision(answer="retrain", reason=found, measures=measures)
    days_left = -(-rest // timedelta(days=1))
    reason = f"{found}, which is too much, but the cooldown of {policy.cooldown.days} days lasts {days_left} more"
    return Decision(answer="wait", reason=reason, measures=measures)
