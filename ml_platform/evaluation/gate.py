"""The gate: may the challenger replace the champion? Every question has a verdict of its own, and they make one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import polars as pl

from ml_platform import metrics
from ml_platform.evaluation.comparison import CHALLENGER, CHAMPION, DAY, has_champion
from ml_platform.evaluation.criteria import (
    beats,
    beats_all,
    fast_enough,
    no_leak,
    no_slice_regresses,
    sane,
    served_as_recomputed,
)
from ml_platform.evaluation.intervals import draw
from ml_platform.evaluation.slices import Answers, slice_table
from ml_platform.monitoring.grouped import groups
from ml_platform.spec import HAPPENS_AT, DeclarationError, ModelSpec, Project, UnknownName, Verdict
from ml_platform.spec.models import Baseline
from ml_platform.training.encoding import Encoding, Floats
from ml_platform.training.training_set import LABEL, input_names

CHAMPION_CRITERION = "champion"
_NAMES: Mapping[Baseline, str] = {"constant": "the constant", "logistic": "logistic regression"}


def check_gate(spec: ModelSpec, project: Project) -> None:
    """Refuse a gate that could not judge, and slices of columns that the training set does not have.

    A holdout at least as long as the time between trainings is vacuous: its rows would always be the champion's, too.

    Raises:
        DeclarationError: the gate would be vacuous, or a limit is none.
        UnknownName: a baseline, a column of a slice or a slice of the fairness groups does not exist.
    """
    gate, policy = spec.gate, project.retrain_policies[spec.policy] if spec.policy else None
    if policy is not None and gate.holdout >= policy.cooldown:
        raise DeclarationError(
            f"model {spec.name}: gate.holdout is {gate.holdout}, but policy {policy.name} may retrain after "
            f"{policy.cooldown}, so that a champion would be judged on rows it was trained on; make the holdout "
            f"shorter than the cooldown"
        )
    limits = {
        "confidence": 0 < gate.confidence <= 1,
        "min_maturity": 0 <= gate.min_maturity <= 1,
        "auc_ceiling": 0.5 < gate.auc_ceiling <= 1,
        "latency_budget_ms": gate.latency_budget_ms > 0,
        "weight_bound": gate.weight_bound > 0,
        "resamples": gate.resamples >= 100,
    }
    for name, holds in limits.items():
        if not holds:
            raise DeclarationError(f"model {spec.name}: gate.{name}={getattr(gate, name)} is no limit; correct it")
    _known(f"baseline (gate of model {spec.name})", gate.baselines, get_args(Baseline))
    columns = [spec.task.key, HAPPENS_AT, *input_names(spec.task, project.views_of(spec))]
    for name, each in spec.slices.items():
        _known(f"column of training_sets/{spec.name} (slice {name})", sorted(each.by.meta.root_names()), columns)
        if each.margin < 0 or each.min_rows < 1:
            raise DeclarationError(
                f"model {spec.name}: slice {name} has margin={each.margin:g} and min_rows={each.min_rows}; a margin is "
                f"a loss of 0 or more, and a group needs a row"
            )
    if spec.fairness is not None:
        _known(f"slice (fairness of model {spec.name})", spec.fairness.slices, spec.slices)


def _known(kind: str, names: Sequence[str], known: Sequence[str] | Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise UnknownName(kind, name, known)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is judged.

    scored: as ``comparison.score`` makes it, fresh to the champion. rows: the same rows with their inputs.
    weights: of the model. latency_ms: of single rows. timezone: the project's.
    maturity: share (0..1) of the holdout's labels that have arrived; None: not known.
    skew: service that answers with this model -> what differs in its newest look (None: nothing); empty: never looked.
    first: there is no champion yet. stands: why there is nothing to compare with (the champion cannot answer).
    """

    scored: pl.DataFrame
    rows: pl.DataFrame
    encoding: Encoding
    weights: Floats
    latency_ms: Sequence[float]
    timezone: str
    maturity: float | None = None
    skew: Mapping[str, str | None] = field(default_factory=dict)
    first: bool = False
    stands: str | None = None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict, that of each criterion by its name, and every group's figures (None: too few rows to judge)."""

    verdict: Verdict
    criteria: Mapping[str, Verdict]
    slices: pl.DataFrame | None = None


def judge(evidence: Evidence, spec: ModelSpec) -> Judged:
    """Ask every question that the evidence has an answer to; one *fail* fails all.

    Without enough rows the verdict is *unknown*, and what needs rows is not asked.
    """
    scored, gate = evidence.scored, spec.gate
    criteria = {"sane": sane(scored[CHALLENGER], evidence.weights, gate.weight_bound)}
    if criteria["sane"].state == "fail":
        return Judged(verdict=together(criteria), criteria=criteria)
    criteria[CHAMPION_CRITERION] = _against_champion(evidence, spec)
    table = None
    if criteria[CHAMPION_CRITERION].state != "unknown":
        table = _slices(evidence, spec)
        criteria |= _on_rows(evidence, spec, table)
    criteria["latency"] = fast_enough(evidence.latency_ms, gate.latency_budget_ms)
    if evidence.skew:
        criteria["skew"] = served_as_recomputed(evidence.skew)
    return Judged(verdict=together(criteria), criteria=criteria, slices=table)


def _slices(evidence: Evidence, spec: ModelSpec) -> pl.DataFrame:
    scored = evidence.scored
    draws = draw(scored[DAY], seed=spec.seed, resamples=spec.gate.resamples)
    rival = scored[CHAMPION] if has_champion(scored) else None
    answers = Answers(labels=scored[LABEL], challenger=scored[CHALLENGER], rival=rival)
    return slice_table(answers, groups(evidence.rows, spec.slices, evidence.timezone), spec.slices, draws)


def _against_champion(evidence: Evidence, spec: ModelSpec) -> Verdict:
    """The paired comparison; the first version is compared with the constant."""
    scored, gate = evidence.scored, spec.gate
    if evidence.stands is not None:
        return Verdict.unknown(evidence.stands)
    if evidence.maturity is not None and evidence.maturity < gate.min_maturity:
        return Verdict.unknown(
            f"only {evidence.maturity:.0%} of the holdout's labels have arrived, {gate.min_maturity:.0%} are needed: "
            f"those that come late are not like the others",
            rows=scored.height,
        )
    ours, truths = (scored[CHALLENGER], scored[LABEL]), (scored[DAY], gate, spec.seed)
    if evidence.first:
        found = beats(ours[0], scored["constant"], ours[1], *truths, name="the constant")
        return Verdict(state=found.state, reason=f"the first version; {found.reason}", measures=found.measures)
    return beats(ours[0], scored[CHAMPION], ours[1], *truths, name="the champion", min_gain=gate.min_gain)


def _on_rows(evidence: Evidence, spec: ModelSpec, slices: pl.DataFrame) -> dict[str, Verdict]:
    scored, gate = evidence.scored, spec.gate
    found = {}
    if has_champion(scored) and spec.slices:
        found["slices"] = no_slice_regresses(slices)
    rivals: dict[str, Verdict] = {
        name: beats(scored[CHALLENGER], scored[name], scored[LABEL], scored[DAY], gate, spec.seed, name=_NAMES[name])
        for name in gate.baselines
    }
    if rivals:
        found["baselines"] = beats_all(rivals)
    auc = metrics.auc(scored[LABEL], scored[CHALLENGER])
    found["leak"] = no_leak(auc, gate.auc_ceiling, evidence.rows, evidence.encoding)
    return found


def together(criteria: Mapping[str, Verdict]) -> Verdict:
    """One verdict: the worst state, and the sentences behind it; a won comparison tells its sentence in any case."""
    states = {verdict.state for verdict in criteria.values()}
    state = next(each for each in ("fail", "unknown", "warn", "pass") if each in states)
    # What names groups goes last: the ledger cuts a reason off there.
    told = [verdict.reason for each in (state, "warn") for verdict in criteria.values() if verdict.state == each]
    told = sorted(dict.fromkeys(told), key=lambda each: "; for example " in each)
    main = criteria.get(CHAMPION_CRITERION)
    won = [main.reason] if main is not None and main.state == "pass" else []
    joint = "; " if state == "warn" else "; but "
    reason = "".join(won) if state == "pass" else joint.join([*won, "; ".join(told)])
    measures: dict[str, float | int | str] = {}
    for verdict in criteria.values():
        measures |= {name: value for name, value in verdict.measures.items() if name not in measures}
    return Verdict(state=state, reason=reason, measures=measures)
