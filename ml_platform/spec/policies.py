"""When a model is trained again and what counts as drift."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from math import inf
from typing import Any, Literal, get_args

from ml_platform.spec.alarms import AlarmBudget, JointRule, Seasons, SharpRule
from ml_platform.spec.cron import problems as cron_problems

Estimating = Literal["off", "told", "holds"]


@dataclass(frozen=True, kw_only=True)
class RetrainPolicy:
    """When a model is trained again; it becomes ``decisions/<name>``. What may ask for it, and what holds it back.

    Late labels: window: length of the judged windows of event days, each compared with the champion's first one at
        the same age. max_loss_ratio: a window is bad when its log-loss exceeds this multiple of the reference
        (``None``: losses ask for nothing). bad, of: so many of the last so many windows, which end ``apart`` from
        each other, must be bad, and the latest among them. min_rows: labels that a window needs.
        min_maturity: share of its labels (0..1) that must have arrived; less is *unknown*.
    triggers: drift policies whose failed verdict asks for a retraining. Other drift opens a review for a person.
    every, cron: time asks for it: so long after the last training, or at five cron fields in the project's timezone.
    deadline: retrain in any case when the champion is older (``None``: never on age alone).
    on_change: ask for it when the model, its task or its views are declared otherwise than at the last training.

    cooldown: shortest time between two retrainings.
    budget: at most so many retrainings within ``budget_time`` (``None``: no limit).
    breaker: after so many retrainings in a row of which none was promoted, none is begun, until a person asks for one
        (`ml-platform retrain`), the declaration changes, or ``breaker_rest`` has passed since the last (``None``: never
        by itself). ``None``: no breaker.
    estimate: whether a cheap refit on labels that have arrived says, before anything is spent, what a retraining would
        gain: ``off``, ``told`` in the reason, or ``holds``: where a gain is less likely than none, no retraining.
        min_gain: log-loss that counts as one.
    patience: how long drift goes on asking while the estimate finds no gain in it.
    """

    window: timedelta = timedelta(days=7)
    max_loss_ratio: float | None = 1.1
    bad: int = 1
    of: int = 1
    apart: timedelta = timedelta(days=1)
    min_rows: int = 500
    min_maturity: float = 0.9
    triggers: tuple[str, ...] = ()
    every: timedelta | None = None
    cron: str | None = None
    deadline: timedelta | None = None
    on_change: bool = True
    cooldown: timedelta = timedelta(days=14)
    budget: int | None = None
    budget_time: timedelta = timedelta(days=7)
    breaker: int | None = 3
    breaker_rest: timedelta | None = timedelta(days=28)
    estimate: Estimating = "off"
    min_gain: float = 0.0
    patience: timedelta = timedelta(days=7)
    description: str = ""
    name: str = ""

    def rules(self) -> dict[str, Any]:
        """Its numbers as they are written into the ledger; spans in seconds."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _plain(value) for name, value in told.items() if name not in ("description", "name")}

    @classmethod
    def of_rules(cls, rules: Mapping[str, Any]) -> "RetrainPolicy":
        """Back from ``rules``; what is not there, or is not known any more, is as declared by default."""
        spans = {field.name for field in fields(cls) if "timedelta" in str(field.type)}
        known = {field.name: rules[field.name] for field in fields(cls) if field.name in rules}
        given: dict[str, Any] = {
            name: timedelta(seconds=value) if name in spans and value is not None else value
            for name, value in known.items()
        }
        return cls(**{**given, "triggers": tuple(given.get("triggers", ()))})

    def problems(self) -> list[str]:
        """What is wrong with it, in words; empty: nothing."""
        day = timedelta(days=1)
        limits = {
            "max_loss_ratio": self.max_loss_ratio is None or 0 < self.max_loss_ratio < inf,
            "min_rows": self.min_rows >= 1,
            "min_maturity": 0 <= self.min_maturity <= 1,
            "cooldown": self.cooldown >= timedelta(0),
            "every": self.every is None or self.every > timedelta(0),
            "deadline": self.deadline is None or self.deadline > timedelta(0),
            "budget": self.budget is None or self.budget >= 1,
            "budget_time": self.budget_time > timedelta(0),
            "breaker": self.breaker is None or self.breaker >= 1,
            "breaker_rest": self.breaker_rest is None or self.breaker_rest > timedelta(0),
            "min_gain": 0 <= self.min_gain < inf,
            "patience": self.patience > timedelta(0),
            "estimate": self.estimate in get_args(Estimating),
        }
        wrong = [f"{name}={getattr(self, name)} is no limit" for name, holds in limits.items() if not holds]
        for name in ("window", "apart"):
            length = getattr(self, name)
            if length < day or length % day:
                wrong.append(f"it has the {name} {length}; it is judged by whole days, so give it one or more of them")
        if not 1 <= self.bad <= self.of:
            wrong.append(f"bad={self.bad} of={self.of} windows can never be; of is at least bad, and that at least 1")
        if self.every is not None and self.every < self.cooldown:
            wrong.append(f"every={self.every} is shorter than the cooldown of {self.cooldown}, so it would never hold")
        if self.cron is not None:
            wrong += cron_problems(self.cron)
        return wrong


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True)
class DriftPolicy:
    """Compares a day's profiles with those of days of its season; it becomes ``drift/<name>``.

    service: whose ``of`` is watched: the *features* that it served, its *predictions* (the probability) or the *labels*
        that became known. Or ``table``: a raw table, each column of it; one of the two is named.
    columns: only these; none named: all.
    min_rows: a day with fewer is neither judged nor compared with.
    seasons: which days are compared with. sharp: what fails, and pages. budget: how often it may warn.
    joint: how features are looked at together, ``None``: not at all; every ``joint_every_days`` days.
    """

    service: str = ""
    of: Literal["features", "predictions", "labels"] = "features"
    table: str = ""
    columns: tuple[str, ...] = ()
    min_rows: int = 100
    seasons: Seasons = field(default_factory=Seasons)
    sharp: SharpRule = field(default_factory=SharpRule)
    budget: AlarmBudget = field(default_factory=AlarmBudget)
    joint: JointRule | None = None
    joint_every_days: int = 1
    description: str = ""
    name: str = ""

    def problems(self) -> list[str]:
        """What keeps it from ever judging, or from being true; none if it is well declared."""
        found = []
        if bool(self.service) == bool(self.table):
            found.append("it names a service or a table, one of the two")
        if self.table and self.of != "features":
            found.append(f"a table has no {self.of}; name the service that they belong to")
        if self.joint and (self.table or self.of != "features"):
            found.append("only features of a service are looked at together; leave joint out")
        if self.seasons.min_days > self.seasons.recent_days:
            found.append(
                f"it needs {self.seasons.min_days} days but looks back {self.seasons.recent_days}, so it could never "
                f"judge; lower min_days or raise recent_days"
            )
        if not 0 < self.budget.share < 1 or self.budget.period_days < 1:
            found.append(f"a budget is a share between 0 and 1 of periods of a day or more, not {self.budget}")
        if self.joint_every_days < 1 or self.min_rows < 1:
            found.append("joint_every_days and min_rows are 1 or more")
        return found
