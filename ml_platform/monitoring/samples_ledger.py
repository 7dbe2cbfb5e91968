"""What the ledger tells as numbers: decisions, versions, verdicts of the gate, failures."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ml_platform.monitoring.samples import STATES, Sample, one_of, sample
from ml_platform.spec import ModelSpec, Project
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import (
    ABORT,
    ADOPTION,
    BEGIN,
    FAILURE,
    FOUND,
    GATE,
    HOLD,
    PROMOTION,
    REFUSAL,
    REVIEW,
    ROLLBACK,
    SERVING,
    SKEW,
    TRAINING,
)
from ml_platform.stores.ledger_serving import serving_now
from ml_platform.stores.ledger_wants import consumed, decisions, open_reviews, outstanding, wanted

HOLDS = ("cooldown", "budget", "breaker", "estimate")
ANSWERS = ("retrain", "wait", "unknown")
# What is counted of a model; a count that is 0 is told, too, so that its first rise is seen as one.
EVENTS = (TRAINING, GATE, HOLD, REFUSAL, PROMOTION, FOUND, ADOPTION, BEGIN, ROLLBACK, ABORT, REVIEW)


def of_ledger(ledger: Ledger, project: Project) -> Iterator[Sample]:
    """Everything but whether its chain holds, which takes a second for ten thousand lines.

    Raises:
        HomeDamaged: the file is not a ledger any more.
    """
    for spec in project.models.values():
        yield from _of_model(ledger, spec)
        if spec.policy:
            yield from _of_policy(ledger, spec)
    yield sample("run_failures", len(ledger.entries(FAILURE, project.name)), project=project.name)
    for service in project.services:
        yield from _of_skew(ledger.entries(SKEW, service), service)


def of_chain(ledger: Ledger) -> Iterator[Sample]:
    """Whether the ledger's lines are those that were written.

    Raises:
        HomeDamaged: the file is not a ledger any more.
    """
    yield from one_of("ledger_state", ledger.verify().state, STATES, "state")


def _of_model(ledger: Ledger, spec: ModelSpec) -> Iterator[Sample]:
    lines = ledger.about(spec.name, {*EVENTS, *SERVING})
    counts = Counter(line.kind for line in lines)
    yield from (sample("model_events", counts[event], model=spec.name, event=event) for event in EVENTS)
    serving = serving_now(lines)
    champion = serving.champion if serving else None
    yield sample("champion_version", float(champion or 0), model=spec.name)
    if serving and champion:
        yield sample("champion_since_timestamp_seconds", serving.champion_since.timestamp(), model=spec.name)
    trained = [line.at for line in lines if line.kind == TRAINING]
    if trained:
        yield sample("trained_timestamp_seconds", max(trained).timestamp(), model=spec.name)
    verdicts = [line for line in lines if line.kind == GATE]
    if verdicts:
        yield from one_of("gate_state", str(verdicts[-1].body["state"]), STATES, "state", model=spec.name)


def _of_policy(ledger: Ledger, spec: ModelSpec) -> Iterator[Sample]:
    policy, decided = str(spec.policy), decisions(ledger, spec.name)
    counts = Counter(str(line.body["answer"]) for line in decided)
    answers = dict.fromkeys([*ANSWERS, *counts])
    yield from (sample("decisions", counts[answer], policy=policy, answer=answer) for answer in answers)
    asked, answered = wanted(decided), consumed(ledger.entries(TRAINING, spec.name))
    yield sample("retrainings_wanted", asked, policy=policy, model=spec.name)
    yield sample("retrainings_consumed", min(answered, asked), policy=policy, model=spec.name)
    yield sample("reviews_open", len(open_reviews(ledger, spec.name)), policy=policy, model=spec.name)
    due = outstanding(ledger, spec.name)
    since = due.at.timestamp() if due else 0.0
    yield sample("retraining_wanted_timestamp_seconds", since, policy=policy, model=spec.name)
    if not decided:
        return
    last = decided[-1]
    yield sample("decision_timestamp_seconds", last.at.timestamp(), policy=policy, model=spec.name)
    yield from one_of("decision_answer", str(last.body["answer"]), answers, "answer", policy=policy)
    holding = {str(one["kind"]) for one in last.body.get("held", ())}
    for by in dict.fromkeys([*HOLDS, *sorted(holding)]):
        yield sample("decision_held", by in holding, policy=policy, model=spec.name, by=by)
    for name, value in last.body["measures"].items():
        if isinstance(value, int | float):
            yield sample("decision_measure", value, policy=policy, measure=name)


def _of_skew(lines: Sequence[Entry], service: str) -> Iterator[Sample]:
    compared = [line for line in lines if int(line.body["compared"])]
    if compared:
        newest = max(compared, key=lambda line: (str(line.body.get("days", line.key)), line.number))
        yield sample("skew_values_compared", newest.body["compared"], service=service)
        yield sample("skew_values_differing", newest.body["differing"], service=service)
