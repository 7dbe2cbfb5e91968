"""A backtest as a table and as JSON."""

from typing import Any

from ml_platform.decisions.backtest import RANDOM, TIMER, Backtest
from ml_platform.decisions.backtest_figures import Outcome
from ml_platform.decisions.backtest_policies import DECLARED, NEVER
from ml_platform.evaluation.intervals import Interval

_MINUS = "\N{MINUS SIGN}"


def head(found: Backtest, price: float | None) -> list[str]:
    """Titles of the columns."""
    costs = [f"{name} an answer" for name in found.metrics]
    priced = [f"{name} in all" for name in list(found.metrics)[:1]] if price is not None else []
    worth = ["saved a retraining"] if found.metrics else []
    return [
        "policy",
        "retrained (took over)",
        "log-loss",
        f"better than {NEVER}",
        f"better than {TIMER}",
        "AUC",
        "training s",
        *costs,
        *worth,
        *priced,
    ]


def lines(found: Backtest, price: float | None) -> list[list[str]]:
    """One a policy, in the order in which they were replayed."""
    return [_line(found, one, price) for one in found.outcomes]


def _line(found: Backtest, one: Outcome, price: float | None) -> list[str]:
    metric = next(iter(found.metrics), None)
    worth = worth_of(found, one) if metric else None
    return [
        one.name,
        "{:.3g} ({:.2g})".format(*found.counts(one)),
        f"{one.log_loss:.4f}",
        *(with_interval(one.against[name]) if one.name != name else "" for name in (NEVER, TIMER)),
        f"{one.auc:.4f}",
        f"{one.seconds:,.0f}",
        *(f"{value:.4f}" for value in one.business.values()),
        *(["" if worth is None else f"{worth:,.0f}".replace("-", _MINUS)] if metric else []),
        *([f"{total(found, one, price):,.0f}"] if metric and price is not None else []),
    ]


def with_interval(found: Interval) -> str:
    """A gain and its interval."""
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})".replace("-", _MINUS)


def worth_of(found: Backtest, one: Outcome) -> float | None:
    """What a retraining saved in the first business metric against never; None without any."""
    never, metric = found.of(NEVER), next(iter(found.metrics))
    count, _ = found.counts(one)
    return (never.business[metric] - one.business[metric]) * found.rows / count if never and count else None


def total(found: Backtest, one: Outcome, price: float) -> float:
    """Business cost of all answers and the price of the retrainings, in the first metric's unit."""
    return one.business[next(iter(found.metrics))] * found.rows + price * found.counts(one)[0]


def sentences(found: Backtest) -> list[str]:
    """What stands under the table."""
    asked = found.question
    told = [
        f"{found.rows:,} labelled answers of {len(found.days)} days, {found.days[0]} to {found.days[-1]}, replayed "
        f"from {asked.first}; features and labels as known at each moment, from {found.source}",
        "the gate judges each version, as the model declares; its holdout is not trained on"
        if asked.gated
        else "no gate: each version takes over, trained on the newest rows, too",
        "intervals: 95 %, days drawn with replacement, paired by answer",
    ]
    if found.drawn:
        low, high = min(found.drawn), max(found.drawn)
        told.append(f"random: the mean of {len(found.drawn)} draws, whose log-loss is {low:.4f} to {high:.4f}")
    if found.unheard:
        told.append(f"{DECLARED} is triggered by {', '.join(found.unheard)}, too, which a backtest does not replay")
    mine = found.of(DECLARED)
    if mine is not None and RANDOM in mine.against:
        told.append(f"{DECLARED} is better than {RANDOM} by {with_interval(mine.against[RANDOM])}")
    told += [f"{name}: {metric.description}" for name, metric in found.metrics.items()]
    return told


def as_json(found: Backtest, price: float | None) -> dict[str, Any]:
    """Everything, as plain values."""
    return {
        "model": found.model,
        "first": str(found.question.first),
        "last": str(found.question.last),
        "judged_since": str(found.question.since),
        "gated": found.question.gated,
        "lag_days": found.question.lag_days,
        "source": found.source,
        "answers": found.rows,
        "price": price,
        "random_log_losses": list(found.drawn),
        "policies": [_policy(found, one, price) for one in found.outcomes],
    }


def _policy(found: Backtest, one: Outcome, price: float | None) -> dict[str, Any]:
    against = {name: [each.value, each.low, each.high] for name, each in one.against.items()}
    return {
        "policy": one.name,
        "description": one.description,
        "log_loss": one.log_loss,
        "auc": one.auc,
        "better_than": against,
        "retrainings": found.counts(one)[0],
        "took_over": found.counts(one)[1],
        "training_seconds": one.seconds,
        "cpu_seconds": one.cpu_seconds,
        "business": dict(one.business),
        "total": total(found, one, price) if price is not None and found.metrics else None,
        "events": [_event(each) for each in one.all] if one.name != "random" else [],
        "failures": {str(day): why for day, why in _failures(found, one).items()},
    }


def _failures(found: Backtest, one: Outcome) -> Any:
    replayed = found.policies.get(one.name)
    return replayed.failures if replayed else {}


def _event(one: Any) -> dict[str, Any]:
    return {"day": str(one.day), "reason": one.reason, "took_over": one.promoted, "gate": one.verdict}
