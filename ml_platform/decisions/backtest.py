"""The past under several retraining policies: which of them would have been worth it?

All policies are carried through the same days with the platform's own functions: features and labels as known at each
moment, the decision and the gate that run in production. Versions are trained once for each moment and shared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from ml_platform.decisions.backtest_cohorts import Cohorts
from ml_platform.decisions.backtest_drift import drift_verdicts
from ml_platform.decisions.backtest_figures import Judged, Outcome, gain, judged, losses_of, mean_losses, outcome
from ml_platform.decisions.backtest_history import History
from ml_platform.decisions.backtest_policies import (
    DECLARED,
    DRIFT,
    NEVER,
    Drifts,
    by_evidence,
    drawn,
    every,
    never,
    on_drift,
)
from ml_platform.decisions.backtest_replay import Arena, Replayed, replay
from ml_platform.decisions.backtest_versions import Floats, Versions, without_holdout
from ml_platform.spec import BusinessMetric, DeclarationError, DriftPolicy, ModelSpec, Project, RetrainPolicy
from ml_platform.spec.calendar import STARTS_AFTER_MIDNIGHT, day_start

WEEKLY, TIMER, RANDOM = "weekly", "four-weekly", "random"
_WEEK, _FOUR_WEEKS = 7, 28


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a backtest is asked.

    first, last: the days that are replayed. since: the first day whose answers are judged.
    gated: whether versions are judged as the model declares; else each takes over, and learns from the newest rows.
    lag_days: from the gate's word to taking over. draws: of random times. varied: other declarations, by name.
    timers: further ones, in days. skipped: names of policies that are left out.
    """

    first: date
    last: date
    since: date
    gated: bool = True
    lag_days: int = 0
    draws: int = 20
    seed: int = 2013
    varied: Mapping[str, RetrainPolicy] = field(default_factory=dict)
    timers: tuple[int, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """What was found. outcomes: one a policy. drawn: loss of each draw of random times; drawn_counts: its mean
    numbers of retrainings and of those that took over. days: of ``saved``.

    policies: what was replayed, with every day's decision. again: the same replays, judged from another day on.
    unheard: triggers of the declared policy that were not replayed.
    """

    model: str
    question: Question
    source: str
    rows: int
    days: tuple[date, ...]
    outcomes: tuple[Outcome, ...]
    drawn: tuple[float, ...]
    drawn_saved: tuple[Floats, ...]
    drawn_counts: tuple[float, float]
    unheard: tuple[str, ...]
    metrics: Mapping[str, BusinessMetric]
    policies: Mapping[str, Replayed]
    again: Callable[[date], "Backtest"] = field(repr=False, compare=False)

    def counts(self, one: Outcome) -> tuple[float, float]:
        """How often the policy retrained, and how many versions took over; means where it was drawn."""
        return self.drawn_counts if one.name == RANDOM else (len(one.retrainings), one.promoted)

    def of(self, name: str) -> Outcome | None:
        """The policy's figures, if it was replayed."""
        return next((one for one in self.outcomes if one.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the project says about a model: its policy, its service's drift policies of inputs, what its answers cost.

    Drift of predictions depends on which version answers, that of labels and tables is no input: they are left out.
    """

    policy: RetrainPolicy | None
    drifts: Mapping[str, DriftPolicy]
    metrics: Mapping[str, BusinessMetric]


Told = Callable[[str, int, int], object]  # what is being done, how much of how much


def declared_for(project: Project, spec: ModelSpec) -> Declared:
    """Found through the service that answers with the model."""
    services = {service.name for service in project.services.values() if service.model == spec.name}
    rollouts = (policy for policy in project.rollout_policies.values() if policy.service in services)
    return Declared(
        policy=project.retrain_policies[spec.policy] if spec.policy else None,
        drifts={
            name: policy
            for name, policy in project.drift_policies.items()
            if policy.service in services and policy.of == "features"
        },
        metrics={name: metric for policy in rollouts for name, metric in policy.metrics.items()},
    )


def backtest(
    history: History, declared: Declared, asked: Question, folder: Path, *, threads: int, told: Told = lambda *_: None
) -> Backtest:
    """Replay every policy. folder: where versions are kept. told: what is done, how many days of how many are over.

    Raises:
        DeclarationError: the days cannot be had.
        TooFewLabels: there is too little to train the first version on, or to judge.
    """
    refuse_days(history, asked)
    arena = arena_of(history, asked, folder, threads)
    drifts = _drifts(arena, declared, asked, folder, told)
    policies = [never(), every(_WEEK, WEEKLY), every(_FOUR_WEEKS, TIMER), *(every(days) for days in asked.timers)]
    rest = declared.policy.cooldown if declared.policy else timedelta(0)
    policies += [on_drift(name, drifts, rest) for name in list(drifts)[:1]]
    if declared.policy:
        policies.append(by_evidence(declared.policy, drifts=drifts))
    policies += [by_evidence(policy, name, drifts) for name, policy in asked.varied.items()]
    chosen = [one for one in policies if one.name in (NEVER, TIMER) or one.name not in asked.skipped]
    replayed = {one.name: replay(one, arena, _counted(told, one.name, arena)) for one in chosen}
    random = _random(arena, asked, replayed, told)
    return _found(arena, declared, asked, replayed, random)


def _drifts(arena: Arena, declared: Declared, asked: Question, folder: Path, told: Told) -> Drifts:
    """The verdicts of the drift policies that somebody looks at."""
    looked = set() if declared.policy is None else set(declared.policy.triggers)
    looked |= {name for policy in asked.varied.values() for name in policy.triggers}
    if DRIFT not in asked.skipped:
        looked |= set(list(declared.drifts)[:1])
    return {
        name: drift_verdicts(arena, policy, folder, _counted(told, f"drift {name}", arena))
        for name, policy in declared.drifts.items()
        if name in looked
    }


def refuse_days(history: History, asked: Question) -> None:
    """Look whether the days can be replayed.

    Raises:
        DeclarationError: they cannot; says which can.
    """
    if not asked.first <= asked.since <= asked.last or asked.last > history.until:
        raise DeclarationError(
            f"a backtest of {history.spec.name} can be asked from a day on until another up to {history.until}, judged "
            f"since a day between; {asked.first} to {asked.last}, judged since {asked.since}, is none: choose others"
        )


def arena_of(history: History, asked: Question, folder: Path, threads: int) -> Arena:
    """The days with what all policies share."""
    spec = history.spec if asked.gated else without_holdout(history.spec)
    started = day_start(asked.first, history.timezone) + STARTS_AFTER_MIDNIGHT
    return Arena(
        history=history,
        versions=Versions(history=history, spec=spec, folder=folder, threads=threads),
        cohorts=Cohorts(history=history, started=started),
        first=asked.first,
        last=asked.last,
        started=started,
        lag=timedelta(days=asked.lag_days),
    )


def _counted(told: Told, name: str, arena: Arena) -> Callable[[date], object]:
    days = (arena.last - arena.first).days
    return lambda day: told(name, (day - arena.first).days, days)


def _random(arena: Arena, asked: Question, replayed: Mapping[str, Replayed], told: Told) -> list[Replayed]:
    """Random times with as many retrainings as the declared policy made."""
    if DECLARED not in replayed or not (count := len(replayed[DECLARED].retrainings)):
        return []
    chosen = drawn(arena.first, arena.last, count, grid_days=_WEEK, draws=asked.draws, seed=asked.seed)
    return [replay(one, arena, _counted(told, one.name, arena)) for one in chosen]


def _found(
    arena: Arena,
    declared: Declared,
    asked: Question,
    replayed: Mapping[str, Replayed],
    random: Sequence[Replayed],
) -> Backtest:
    on = judged(arena, asked.since, asked.seed)
    rivals = {name: losses_of(replayed[name], on) for name in (NEVER, TIMER)}
    outcomes = [outcome(one, on, rivals, declared.metrics, asked.since, NEVER) for one in replayed.values()]
    draws = [outcome(one, on, rivals, declared.metrics, asked.since, NEVER) for one in random]
    if random:
        # Beside the declared policy: what one that is drawn at random loses in the mean, row by row.
        anyone = {**rivals, RANDOM: mean_losses(random, on)}
        own = outcome(replayed[DECLARED], on, anyone, declared.metrics, asked.since, NEVER)
        outcomes = [own if one.name == DECLARED else one for one in outcomes]
        outcomes.append(_mean(draws, random, on, rivals))
    return Backtest(
        model=arena.history.spec.name,
        question=asked,
        source=arena.history.source,
        rows=on.rows,
        days=tuple(on.days.unique().sort().to_list()),
        outcomes=tuple(outcomes),
        drawn=tuple(one.log_loss for one in draws),
        drawn_saved=tuple(one.saved for one in draws),
        drawn_counts=_counts(draws),
        unheard=tuple(
            name for name in (declared.policy.triggers if declared.policy else ()) if name not in declared.drifts
        ),
        metrics=declared.metrics,
        policies=replayed,
        again=lambda day: _found(arena, declared, replace(asked, since=day), replayed, random),
    )


def _counts(draws: Sequence[Outcome]) -> tuple[float, float]:
    if not draws:
        return 0.0, 0.0
    return float(np.mean([len(one.retrainings) for one in draws])), float(np.mean([one.promoted for one in draws]))


def _mean(draws: Sequence[Outcome], random: Sequence[Replayed], on: Judged, rivals: Mapping[str, Floats]) -> Outcome:
    """All draws in one line: means; the events are those of the first."""
    losses = mean_losses(random, on)
    return replace(
        draws[0],
        name=RANDOM,
        description=f"as many retrainings at random weeks, {len(draws)} draws",
        log_loss=float(losses.mean()),
        auc=float(np.mean([one.auc for one in draws])),
        against={name: gain(other - losses, on.draws) for name, other in rivals.items()},
        business={name: float(np.mean([one.business[name] for one in draws])) for name in draws[0].business},
        seconds=float(np.mean([one.seconds for one in draws])),
        cpu_seconds=float(np.mean([one.cpu_seconds for one in draws])),
        saved=np.mean([one.saved for one in draws], axis=0),
    )
