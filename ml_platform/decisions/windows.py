"""The champion's losses on late labels: its newest windows of days against its first, at the same age.

Labels that come late are not like others, so a window of which four days are known a day after is compared with the
first window as it was known a day after. The performance table keeps each day's look at each cohort.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import polars as pl

from ml_platform.decisions.past import Served
from ml_platform.monitoring.performance import COHORT
from ml_platform.spec import RetrainPolicy
from ml_platform.stores.delta import PARTITION

# The newest days have few labels yet; the judged window is moved back at most this far to find a mature one.
_LOOK_BACK_DAYS = 3
Measures = Mapping[str, float | int | str]


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Whether late labels ask for a retraining: ``bad``, ``borne``, or *unknown*; the sentence and its numbers."""

    state: Literal["bad", "borne", "unknown"]
    reason: str
    measures: Measures


@dataclass(frozen=True, kw_only=True)
class _Loss:
    first: date
    last: date
    log_loss: float
    labelled: int
    maturity: float


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A window beside the champion's first one as it was at the same age."""

    current: _Loss | None
    reference: _Loss | None

    @property
    def ratio(self) -> float:
        """Of losses that are there."""
        assert self.current is not None
        assert self.reference is not None
        if self.reference.log_loss == 0:
            return 1.0 if self.current.log_loss == 0 else float("inf")
        return self.current.log_loss / self.reference.log_loss


def judge_losses(policy: RetrainPolicy, cohorts: pl.DataFrame, champion: Served, day: date) -> Losses:
    """Judge the windows until the last closed local day.

    cohorts: one row a day of asking and model version (``monitoring.performance.cohorts``); with ``known_date`` one for
        each look at it, without it each as last looked at.
    """
    assert policy.max_loss_ratio is not None
    own = cohorts.filter(pl.col("model_version") == champion.version)
    latest = _newest_mature(own, champion, day, policy)
    unready = _unready(latest.reference, "first", champion, day, policy)
    unready = unready or _unready(latest.current, "newest", champion, day, policy)
    return unready or _compared(policy, own, champion, day, latest)


def _newest_mature(own: pl.DataFrame, champion: Served, day: date, policy: RetrainPolicy) -> _Pair:
    span = policy.window.days
    found = _Pair(current=None, reference=_known_until(own, champion.first_day, span, day))
    for back in range(_LOOK_BACK_DAYS + 1):
        first = day - timedelta(days=back + span - 1)
        if first <= champion.first_day:
            break
        pair = _pair(own, champion, first, span, day)
        if pair.current is not None:
            found = pair
        if _is_mature(pair.current, policy) and _is_mature(pair.reference, policy):
            break
    return found


def _pair(own: pl.DataFrame, champion: Served, first: date, span: int, day: date) -> _Pair:
    """The reference is taken as it was known when its days were as old as the window's are on ``day``."""
    same_age = day - (first - champion.first_day)
    return _Pair(
        current=_known_until(own, first, span, day),
        reference=_known_until(own, champion.first_day, span, same_age),
    )


def _known_until(own: pl.DataFrame, first: date, span: int, known: date) -> _Loss | None:
    """So many days from ``first`` on, as they were last looked at until a day."""
    last = first + timedelta(days=span - 1)
    window = own.filter(pl.col(COHORT).is_between(first, last))
    if PARTITION in window.columns:
        seen = window.filter(pl.col(PARTITION) <= known).sort(PARTITION)
        window = seen.unique(COHORT, keep="last", maintain_order=True)
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


def _is_mature(loss: _Loss | None, policy: RetrainPolicy) -> bool:
    return loss is not None and loss.maturity >= policy.min_maturity


def _unready(loss: _Loss | None, which: str, champion: Served, day: date, policy: RetrainPolicy) -> Losses | None:
    """Why this window cannot be judged yet, if it cannot."""
    served = max((day - champion.first_day).days + 1, 0)
    measures: dict[str, float | int | str] = {"days_served": served, "version": champion.version}
    if served <= policy.window.days:
        reason = (
            f"version {champion.version} served {served} day{'' if served == 1 else 's'} until {day}; its first "
            f"{policy.window.days} are what later ones are compared with"
        )
        return Losses(state="unknown", reason=reason, measures=measures)
    whose = f"version {champion.version}'s {which} {policy.window.days} days"
    if loss is None:
        reason = f"{whose} until {day} have no label" if which == "newest" else f"{whose} have no label"
        return Losses(state="unknown", reason=reason, measures=measures)
    measures |= {"labelled": loss.labelled, "maturity": round(loss.maturity, 4)}
    if loss.maturity < policy.min_maturity:
        reason = f"of the truths of {whose} {loss.maturity:.0%} arrived; {policy.min_maturity:.0%} are needed"
        return Losses(state="unknown", reason=reason, measures=measures)
    if loss.labelled < policy.min_rows:
        reason = f"{whose} have {loss.labelled} labels; {policy.min_rows} are needed"
        return Losses(state="unknown", reason=reason, measures=measures)
    return None


def _beside(ratio: float, limit: float) -> str:
    """To two digits, or to as many as show on which side of the limit it lies."""
    digits = next((n for n in (2, 3, 4) if round(ratio, n) != limit or ratio == limit), 5)
    return f"{ratio:.{digits}f}"


def _compared(policy: RetrainPolicy, own: pl.DataFrame, champion: Served, day: date, latest: _Pair) -> Losses:
    """The latest window, which can be judged, and those before it."""
    current, reference, limit = latest.current, latest.reference, policy.max_loss_ratio
    assert current is not None
    assert reference is not None
    assert limit is not None
    measures: dict[str, float | int | str] = {
        "version": champion.version,
        "log_loss": round(current.log_loss, 5),
        "reference_log_loss": round(reference.log_loss, 5),
        "ratio": round(latest.ratio, 4),
        "labelled": current.labelled,
        "maturity": round(current.maturity, 4),
    }
    found = (
        f"late labels: log-loss {current.log_loss:.4f} on {current.first} to {current.last} ({current.labelled} "
        f"labels), {_beside(latest.ratio, limit)} times version {champion.version}'s first {policy.window.days} days "
        f"({reference.log_loss:.4f} from {reference.first})"
    )
    if latest.ratio <= limit:
        return Losses(state="borne", reason=f"{found}; up to {limit} is borne", measures=measures)
    if policy.of == 1:
        return Losses(state="bad", reason=f"{found}; more than {limit}", measures=measures)
    judged = [latest, *_before(policy, own, champion, day, current.last)]
    bad = sum(pair.ratio > limit for pair in judged)
    measures |= {"bad_windows": bad, "judged_windows": len(judged)}
    found += f"; {bad} of the last {len(judged)} windows are above {limit}"
    if bad >= policy.bad:
        return Losses(state="bad", reason=f"{found}, and the latest", measures=measures)
    return Losses(state="borne", reason=f"{found}; {policy.bad} of {policy.of} are too many", measures=measures)


def _before(policy: RetrainPolicy, own: pl.DataFrame, champion: Served, day: date, end: date) -> list[_Pair]:
    """The windows before the latest that can be judged; what cannot is not counted."""
    found = []
    for number in range(1, policy.of):
        first = end - number * policy.apart - timedelta(days=policy.window.days - 1)
        if first <= champion.first_day:
            break
        pair = _pair(own, champion, first, policy.window.days, day)
        if all(
            _is_mature(loss, policy) and loss is not None and loss.labelled >= policy.min_rows
            for loss in (pair.current, pair.reference)
        ):
            found.append(pair)
    return found
