"""The evidence of one rollout, gathered from the prediction log; whoever reads the log again comes to the same.

Answers of both versions, requests that failed, what the other version would have answered (the shadow) and truths.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from ml_platform.serving.eprocess import cut_exp
from ml_platform.serving.evidence import Gathered
from ml_platform.serving.evidence_account import Metric
from ml_platform.serving.rollout import Look, Standing
from ml_platform.serving.traffic import CANARY, CHAMPION
from ml_platform.spec.rollouts import ERRORS, LATENCY, LOSS, PROBABILITY, TRUTH, UNSEEN, RolloutPolicy

Record = Mapping[str, Any]
_OF_CHAMPION = "_of_champion"
# A canary that fails in the shadow more often than the champion by that may not go on.
_UNSEEN_MARGIN = 0.01
_COLUMNS = ("unit", "assigned", "variant", "probability")


def metrics_of(policy: RolloutPolicy) -> tuple[Metric, ...]:
    """What is counted, by guard."""
    found = []
    if UNSEEN in policy.guards:
        found.append(Metric(name=UNSEEN, kind="bounded", margin=_UNSEEN_MARGIN, paired_with=UNSEEN + _OF_CHAMPION))
    if policy.errors:
        found.append(Metric(name=ERRORS, kind="failures", margin=policy.margin))
    if policy.latency:
        found.append(Metric(name=LATENCY, kind="seconds", margin=policy.margin))
    if policy.loss:
        found.append(Metric(name=LOSS, kind="bounded", margin=policy.loss_margin, paired_with=_pair(LOSS, policy)))
    for name, metric in policy.metrics.items():
        found.append(
            Metric(
                name=name,
                kind="bounded",
                low=metric.low,
                high=metric.high,
                tolerance=metric.tolerance,
                margin=metric.margin,
                paired_with=_pair(name, policy),
            )
        )
    return tuple(found)


def _pair(name: str, policy: RolloutPolicy) -> str | None:
    return name + _OF_CHAMPION if policy.paired else None


@dataclass
class _Answer:
    """What waits for its truth: who answered and what; what the canary and the champion say of it."""

    unit: str
    assigned: str | None
    variant: str
    weight: float
    said: dict[str, float]


@dataclass
class Case:
    """What is known of a rollout so far.

    Every method may be called in pieces of any size; of one id the first answer, shadow and truth count.
    """

    policy: RolloutPolicy
    gathered: Gathered = field(init=False)
    shadowed: int = 0
    dropped: int = 0
    truths: int = 0
    _answers: dict[str, _Answer] = field(default_factory=dict)
    _records: list[dict[str, Any]] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _units: set[str] = field(default_factory=set)
    _answered: Counter[float] = field(default_factory=Counter)  # units of the canary, by the share they were drawn at

    def __post_init__(self) -> None:
        """Nothing seen yet."""
        self.gathered = Gathered.nothing(metrics_of(self.policy))

    def answered(self, records: Iterable[Record]) -> None:
        """Answers as they stand in the log, with ``variant``, ``chance`` (of the variant) and ``seconds``."""
        for record in records:
            if record["id"] in self._seen:
                continue
            self._seen.add(record["id"])
            said = {record["variant"]: record["probability"]}
            answer = _Answer(*self._units_of(record), record["variant"], _weight(record), said)
            self._answers[record["id"]] = answer
            self._of_request(record, failed=0.0, seconds=record.get("seconds"))

    def failed(self, records: Iterable[Record]) -> None:
        """Requests that a version could not answer (whoever did instead), likewise."""
        for record in records:
            self._of_request(record, failed=1.0, seconds=None)

    def _of_request(self, record: Record, *, failed: float, seconds: float | None) -> None:
        (unit, assigned), weight = self._units_of(record), _weight(record)
        if not 0 < weight < 1:  # before the canary answers anybody, nothing can be learned from who was asked
            return
        if record["variant"] == CANARY and unit not in self._units:
            self._units.add(unit)
            self._answered[weight] += 1
        floor = self.policy.latency_floor.total_seconds()
        values = {ERRORS: failed, LATENCY: None if seconds is None else max(seconds, floor)}
        self._records.append(_filled(unit, assigned, record["variant"], weight, values))

    def shadow(self, records: Iterable[Record]) -> None:
        """What the other version said of answers: ``variant``, ``probability`` (None: it failed)."""
        for record in records:
            answer = self._answers.get(record["id"])
            if answer is None or record["variant"] in answer.said:
                continue
            self.shadowed += 1
            if record["probability"] is not None:
                answer.said[record["variant"]] = record["probability"]
            missed = {variant: float(variant not in answer.said) for variant in (CANARY, CHAMPION)}
            unseen = {UNSEEN: missed[CANARY], UNSEEN + _OF_CHAMPION: missed[CHAMPION]}
            self._records.append(_filled(answer.unit, answer.assigned, answer.variant, answer.weight, unseen))

    def learned(self, records: Iterable[Record]) -> None:
        """Truths: ``id`` and ``value`` (None: there is none)."""
        for record in records:
            answer = self._answers.pop(record["id"], None)
            if answer is None or record["value"] is None:
                continue
            self.truths += 1
            self._losses(answer, int(record["value"]))

    def _losses(self, answer: _Answer, truth: int) -> None:
        both = len(answer.said) == 2
        if self.policy.paired and not both:
            return
        costs: dict[str, float | None] = {}
        for variant, probability in answer.said.items():
            if not self.policy.paired and variant != answer.variant:
                continue
            suffix = _OF_CHAMPION if self.policy.paired and variant != CANARY else ""
            costs |= {metric + suffix: cost for metric, cost in self._costs(probability, truth).items()}
        self._records.append(_filled(answer.unit, answer.assigned, answer.variant, answer.weight, costs))

    def _costs(self, probability: float, truth: int) -> dict[str, float]:
        found = {LOSS: (probability - truth) ** 2} if self.policy.loss else {}
        if self.policy.metrics:
            row = pl.DataFrame({PROBABILITY: [probability], TRUTH: [truth]})
            values = row.select(**{name: each.value.cast(pl.Float64) for name, each in self.policy.metrics.items()})
            found |= values.row(0, named=True)
        return found

    def _units_of(self, record: Record) -> tuple[str, str | None]:
        """Of evidence, and of assignment where that is another one."""
        unit = _named(record, self.policy.evidence_by) if self.policy.evidence_by else str(record["id"])
        if self.policy.assign_by == self.policy.evidence_by:
            return unit, None
        return unit, _named(record, self.policy.assign_by) if self.policy.assign_by else str(record["id"])

    def look(self, now: datetime, share: float) -> Look:
        """Where every guard stands. ``share``: of the present step."""
        if self._records:
            names = dict.fromkeys(name for record in self._records for name in record)
            columns = {name: [record.get(name) for record in self._records] for name in names}
            kinds = {name: pl.String if name in _COLUMNS[:3] else pl.Float64 for name in names}
            frame = pl.DataFrame(columns, schema_overrides=kinds)
            if frame["assigned"].null_count():
                frame = frame.drop("assigned")
            self.gathered = self.gathered.after(frame)
            self._records.clear()
        found = {each.metric: each for each in self.gathered.evidence()}
        standings = {
            name: Standing(
                against=cut_exp(each.rollback) if each.events else 1.0,
                in_favour=cut_exp(each.promotion) if each.has_data else 1.0,
                canary=each.canary.units,
                champion=each.champion.units,
                sentence=each.sentence,
            )
            for name, each in found.items()
        }
        return Look(at=now, standings=standings, shadowed=self.shadowed, answered=self._answered[share])


def _weight(record: Record) -> float:
    """The probability with which the canary was to answer."""
    chance = float(record["chance"])
    return chance if record["variant"] == CANARY else 1 - chance


def _named(record: Record, by: Sequence[str]) -> str:
    return "\x1f".join(str(record["entities"][name]) for name in by)


def _filled(
    unit: str, assigned: str | None, variant: str, weight: float, values: Mapping[str, float | None]
) -> dict[str, Any]:
    return {"unit": unit, "assigned": assigned, "variant": variant, "probability": weight, **values}
