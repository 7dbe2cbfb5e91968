"""Whether a model is trained again, and why (or why not): what asks for it, against what holds it back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Literal

import polars as pl

from ml_platform.decisions.past import Past, Review
from ml_platform.decisions.rests import Rest, rests
from ml_platform.decisions.triggers import PASSES, Trigger, triggers
from ml_platform.decisions.windows import Losses, judge_losses
from ml_platform.spec import RetrainPolicy, Verdict

Answer = Literal["retrain", "wait", "unknown"]
Estimate = Callable[[], Verdict]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer, the sentence that explains it, and the numbers behind it.

    asked: what asks for a retraining. held: what holds it back, or would if something asked (then nothing asks).
    spares: lines of the ledger (drift) that ask no longer, and whether time does, since there is nothing to gain.
    """

    answer: Answer
    reason: str
    measures: Mapping[str, float | int | str]
    asked: tuple[Trigger, ...] = ()
    held: tuple[Rest, ...] = ()
    spares: tuple[int, ...] = ()
    spares_time: bool = False
    estimate: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class _Weighed:
    """What asks, what of it may go on at once, and what holds back."""

    asked: Sequence[Trigger]
    free: Sequence[Trigger]
    held: Sequence[Rest]
    measures: Mapping[str, float | int | str] = field(default_factory=dict)


def decide(
    policy: RetrainPolicy,
    cohorts: pl.DataFrame,
    past: Past,
    day: date,
    now: datetime,
    timezone: str,
    estimate: Estimate | None = None,
) -> Decision:
    """Weigh what asks for a retraining against what holds it back.

    cohorts: as ``windows.judge_losses`` takes them.
    day: the last closed local day; now: the platform's time; timezone: the project's.
    estimate: what a retraining would gain; it is called at most once, and only where the answer hangs on it.
    """
    return weigh(policy, past, _losses(policy, cohorts, past, day), now, timezone, estimate)


def weigh(
    policy: RetrainPolicy, past: Past, losses: Losses, now: datetime, timezone: str, estimate: Estimate | None = None
) -> Decision:
    """The same of losses that were judged."""
    asked = triggers(policy, past, losses, now, timezone)
    held = rests(policy, past, now)
    if not asked:
        return _quiet(past, losses, held)
    free = [one for one in asked if not _holding(one, held)]
    measures = {**losses.measures, **{name: value for one in asked for name, value in one.measures.items()}}
    weighed = _Weighed(asked=asked, free=free, held=held, measures=measures)
    if not free:
        return _waiting(weighed)
    if policy.estimate == "off" or estimate is None or past.wanted or past.champion is None:
        return _going(weighed)
    if policy.estimate == "holds" and any("estimate" in PASSES.get(one.kind, ()) for one in free):
        return _going(weighed)
    return _estimated(policy, weighed, estimate(), now)


def _losses(policy: RetrainPolicy, cohorts: pl.DataFrame, past: Past, day: date) -> Losses:
    if past.champion is None:
        return Losses(state="unknown", reason="there is no champion yet, so nothing can be judged", measures={})
    if policy.max_loss_ratio is None:
        return Losses(state="borne", reason="losses on late labels ask for nothing in this policy", measures={})
    return judge_losses(policy, cohorts, past.champion, day)


def _holding(trigger: Trigger, held: Sequence[Rest]) -> list[Rest]:
    return [rest for rest in held if rest.kind not in PASSES.get(trigger.kind, ())]


def _quiet(past: Past, losses: Losses, held: Sequence[Rest]) -> Decision:
    """Nothing asks. Where losses cannot be judged, that is not known to be right."""
    answer: Answer = "unknown" if losses.state == "unknown" else "wait"
    waiting = [_reviewed(past.reviews)] if past.reviews else []
    reason = "; ".join([losses.reason, *waiting])
    return Decision(answer=answer, reason=reason, measures=losses.measures, held=tuple(held))


def _reviewed(reviews: Sequence[Review]) -> str:
    """One clause, however many wait: each has a sentence of its own in ``why``."""
    drifted = " and ".join(dict.fromkeys(one.drift for one in reviews))
    others = "".join(f"or {one.line}, " for one in reviews[1:])
    return (
        f"{drifted} drifted, which no policy answers: whether to retrain on it waits for `ml-platform approve MODEL "
        f"--drift {reviews[0].line}` ({others}or `reject`)"
    )


def _waiting(weighed: _Weighed, *more: Rest) -> Decision:
    holding = list(dict.fromkeys(rest for one in weighed.asked for rest in _holding(one, weighed.held)))
    reason = f"{_told(weighed.asked)}, but {' and '.join(rest.reason for rest in [*holding, *more])}"
    return Decision(
        answer="wait",
        reason=reason,
        measures=weighed.measures,
        asked=tuple(weighed.asked),
        held=(*weighed.held, *more),
    )


def _going(weighed: _Weighed, found: Verdict | None = None) -> Decision:
    told = "" if found is None else f"; {found.reason}"
    return Decision(
        answer="retrain",
        reason=f"{_told(weighed.free)}{told}",
        measures={**weighed.measures, **(found.measures if found else {})},
        asked=tuple(weighed.asked),
        held=tuple(weighed.held),
        estimate=found,
    )


def _estimated(policy: RetrainPolicy, weighed: _Weighed, found: Verdict, now: datetime) -> Decision:
    """No gain, no retraining. What cannot be estimated does not hold back: it is no evidence against one."""
    if policy.estimate == "told" or found.state != "fail":
        return _going(weighed, found)
    measured = _Weighed(
        asked=weighed.asked,
        free=weighed.free,
        held=weighed.held,
        measures={**weighed.measures, **found.measures},
    )
    patient = now - policy.patience
    return replace(
        _waiting(measured, Rest(kind="estimate", reason=found.reason, until=now + timedelta(days=1))),
        spares=tuple(one.line for one in weighed.free if one.kind == "drift" and one.since <= patient),
        spares_time=any(one.kind == "schedule" for one in weighed.free),
        estimate=found,
    )


def _told(asked: Sequence[Trigger]) -> str:
    return "; ".join(one.reason for one in asked)
