"""How a version that passed the gate takes over a service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import polars as pl

PROBABILITY, TRUTH = "probability", "label"  # columns that a metric's value is written over

# The guards that every service has; a policy's own metrics stand beside them under names of their own.
ERRORS, LATENCY, LOSS = "errors", "latency", "loss"
UNSEEN = "shadow_errors"  # what the canary could not answer in the shadow; always a guard where there is one
GUARDS = (ERRORS, LATENCY, LOSS, UNSEEN)


@dataclass(frozen=True, kw_only=True)
class BusinessMetric:
    """What an answer costs once its truth is known, between ``low`` and ``high``; smaller is better.

    value: over the columns ``probability`` (0..1) and ``label`` (0 or 1), as a number in the metric's unit.
    margin: how much more the canary may cost in the mean and still be promoted; tolerance: and not be rolled back.
    """

    value: pl.Expr
    low: float
    high: float
    margin: float
    description: str
    tolerance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RolloutPolicy:
    """A version that passed the gate answers beside the champion, then a growing share, then all; or it goes.

    It becomes ``rollouts/<name>``. Evidence is gathered by e-processes, so it may be looked at after every answer: the
    canary goes as soon as the evidence against it reaches 1/``alpha``, inside the service.

    shadow_units: answers that the canary must have given unseen before it answers anybody. 0: no shadow.
    steps: its shares (0..1) after that, one after the other; ``step_units`` evidence units must have been answered in
        each, and ``step_time`` of the platform's time must have passed.
    assign_by: entities whose values say who answers: the same ones, the same version. Empty: the task's key.
    evidence_by: entities of which only the first answer counts: a question repeated is no evidence. Empty: as above.
    errors, latency, loss: guards. Requests that failed; answers slower than the champion's own quantiles; the squared
        error (0..1) of answers whose truth is known. An answer quicker than ``latency_floor`` is as good as any other:
        a version that is asked seldom is slower by what the processor's caches forget.
    metrics: guards of the project's own, by name.
    paired: each answer is scored by the other version as well, unseen, so that losses are compared row by row. False:
        only what each version answered itself is compared, for where an answer changes what happens.
    promote_on: guards that must say with the same certainty that the canary is not worse: that its odds of a failure or
        a slow answer are below ``margin`` times the champion's, that its loss is not larger by ``loss_margin``.
    gives_up_after: with no verdict by then the rollout is aborted: no evidence is no pass.
    """

    service: str
    shadow_units: int = 500
    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5)
    step_units: int = 20
    step_time: timedelta = timedelta(hours=1)
    assign_by: tuple[str, ...] = ()
    evidence_by: tuple[str, ...] = ()
    alpha: float = 0.05
    errors: bool = True
    latency: bool = True
    loss: bool = True
    metrics: Mapping[str, BusinessMetric] = field(default_factory=dict)
    paired: bool = True
    promote_on: tuple[str, ...] = (LOSS,)
    margin: float = 1.5
    latency_floor: timedelta = timedelta(milliseconds=1)
    loss_margin: float = 0.01
    gives_up_after: timedelta = timedelta(days=14)
    description: str = ""
    name: str = ""

    @property
    def guards(self) -> tuple[str, ...]:
        """The metrics that may roll back."""
        return (*self.declared, UNSEEN) if self.paired or self.shadow_units else self.declared

    @property
    def declared(self) -> tuple[str, ...]:
        """Those of them that judge answers which somebody was given."""
        asked = {ERRORS: self.errors, LATENCY: self.latency, LOSS: self.loss}
        return (*(name for name, wanted in asked.items() if wanted), *self.metrics)

    def problems(self) -> list[str]:
        """What is wrong with it, in words; empty: nothing."""
        limits = {
            "alpha": 0 < self.alpha < 1,
            "margin": self.margin > 1,
            "shadow_units": self.shadow_units >= 0,
            "step_units": self.step_units >= 1,
            "step_time": self.step_time >= timedelta(0),
            "gives_up_after": self.gives_up_after > timedelta(0),
            "latency_floor": self.latency_floor >= timedelta(0),
            "loss_margin": 0 < self.loss_margin < 1,
        }
        wrong = [f"{name}={getattr(self, name)} is no limit" for name, holds in limits.items() if not holds]
        if not self.declared:
            wrong.append("it has no guard, so nothing could ever stop a bad version: declare at least one")
        if not all(0 < share < 1 for share in self.steps) or list(self.steps) != sorted(set(self.steps)):
            wrong.append(f"steps={self.steps} are not growing shares above 0 and below 1")
        if not self.steps:
            wrong.append("it has no steps, so a version would never answer anybody before it answers all")
        wrong += [f"its metric {name!r} has the name of a guard" for name in self.metrics if name in GUARDS]
        wrong += [
            f"it promotes on {name!r}, which is none of its guards"
            for name in self.promote_on
            if name not in self.declared
        ]
        if not self.promote_on:
            wrong.append("promote_on is empty, so that no data would be a pass")
        for name, metric in self.metrics.items():
            if not 0 <= metric.tolerance < metric.margin < metric.high - metric.low:
                wrong.append(
                    f"metric {name} has the bounds {metric.low} to {metric.high}, the tolerance {metric.tolerance} and "
                    f"the margin {metric.margin}, which must grow in this order: tolerance, margin, width of the bounds"
                )
        return wrong
