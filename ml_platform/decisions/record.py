"""The record of decisions: what the ledger says that a decision starts from, and the line that it becomes.

Level-triggered: a wanted retraining stays wanted, and its alarm is raised again each day, until a training that began
after it is registered; and what happened once (a person's word, drift) asks at every decision until then, whatever held
it back. So no interleaving of decisions, failures and restarts loses it (`stores/ledger_wants.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from ml_platform.decisions.past import Fact, Outcome, Past, Review, Served, Trained
from ml_platform.decisions.retraining import Decision
from ml_platform.spec import RetrainPolicy
from ml_platform.spec.calendar import day_of, day_start
from ml_platform.stores import ledger_wants
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import (
    ABORT,
    ADOPTION,
    DECISION,
    DRIFT,
    GATHERING,
    PROMOTION,
    REFUSAL,
    REJECTION,
    REQUEST,
    REVIEWED,
    ROLLBACK,
    SERVING,
    TRAINING,
)
from ml_platform.stores.ledger_serving import serving_now
from ml_platform.stores.ledger_wants import Answers, consumed, decisions, last_heard, outstanding, wanted

RETRAIN, LEAVE = "retrain", "leave"  # what a person says of a review


def past(ledger: Ledger, policy: RetrainPolicy, model: str, timezone: str, declared: str | None = None) -> Past:
    """What a decision about the model starts from. declared: fingerprint of its declaration now."""
    decided, trained = decisions(ledger, model), ledger.entries(TRAINING, model)
    heard = last_heard(trained)
    spared = {int(number) for line in decided for number in line.body.get("spares", ())}
    asks = [line for line in _asking(ledger, policy, model) if line.number > heard and line.number not in spared]
    due = outstanding(ledger, model)
    return Past(
        champion=served(ledger, model, timezone),
        trainings=trainings(ledger, model),
        facts=tuple(_fact(line) for line in asks),
        reviews=tuple(open_reviews(ledger, model)),
        spared_at=max((line.at for line in decided if line.body.get("spares_time")), default=None),
        reset_line=max((line.number for line in ledger.entries(REQUEST, model)), default=0),
        wanted=int(due.body["wanted"]) if due else 0,
        declared=declared,
    )


def _asking(ledger: Ledger, policy: RetrainPolicy, model: str) -> list[Entry]:
    """Everything that ever asked, in the order in which it was written."""
    people = ledger.about(model, (REQUEST, REVIEWED))
    said = [line for line in people if line.kind == REQUEST or line.body["answer"] == RETRAIN]
    drifts = [line for name in policy.triggers for line in ledger.entries(DRIFT, name)]
    return sorted([*said, *drifts], key=lambda line: line.number)


def _fact(line: Entry) -> Fact:
    kinds = {REQUEST: "request", REVIEWED: "review", DRIFT: "drift"}
    name = line.subject if line.kind == DRIFT else str(line.body["by"])
    reason, day = str(line.body["reason"]), str(line.body.get("day", ""))
    told: dict[str, Any] = {"kind": kinds[line.kind], "at": line.at, "name": name, "line": line.number}
    return Fact(**told, reason=reason if day in reason else f"{day}: {reason}")


def open_reviews(ledger: Ledger, model: str) -> list[Review]:
    """Those that wait: nobody has said a word, and no training began since."""
    return [
        Review(line=line.number, at=line.at, drift=str(line.body["drift"]), reason=str(line.body["reason"]))
        for line in ledger_wants.open_reviews(ledger, model)
    ]


def trainings(ledger: Ledger, model: str) -> tuple[Trained, ...]:
    """Every registered version, oldest first, with what came of it."""
    lines = ledger.entries(TRAINING, model)
    gathered = ledger.entries(GATHERING, model)
    promoted, ended = _ends(ledger, model)
    newest = str(lines[-1].body["version"]) if lines else None
    return tuple(
        _trained(line, gathered, _outcome(str(line.body["version"]), promoted, ended, newest)) for line in lines
    )


def _trained(line: Entry, gathered: Sequence[Entry], outcome: Outcome) -> Trained:
    answers = Answers.of(line.body)
    of = next((one for one in reversed(gathered) if _is_its_set(one, line, answers)), None)
    of = None if "entered_from" in line.body else of  # the winner of a contest learned from another set
    return Trained(
        version=str(line.body["version"]),
        at=line.at,
        outcome=outcome,
        since=of.at if of else None,
        decision=answers.decision,
        heard=answers.heard,
        declared=str(of.body["manifest"]["declared"]) if of and "manifest" in of.body else None,
    )


def _is_its_set(gathering: Entry, training: Entry, answers: Answers) -> bool:
    """The newest before it that answers the same."""
    return gathering.number < training.number and Answers.of(gathering.body) == answers


def _ends(ledger: Ledger, model: str) -> tuple[set[str], set[str]]:
    """The versions that were champion, and those that cannot be any more."""
    ended = {REFUSAL: "version", REJECTION: "version", ROLLBACK: "before", ABORT: "canary"}
    lines = ledger.about(model, (PROMOTION, ADOPTION, *ended))
    promoted = {str(line.body["version"]) for line in lines if line.kind in (PROMOTION, ADOPTION)}
    return promoted, {str(line.body[ended[line.kind]]) for line in lines if line.kind in ended}


def _outcome(version: str, promoted: set[str], ended: set[str], newest: str | None) -> Outcome:
    """A version that another one was trained after is no candidate any more, unless it was promoted."""
    if version in promoted:
        return "promoted"
    return "ended" if version in ended or version != newest else "open"


def served(ledger: Ledger, model: str, timezone: str) -> Served | None:
    """The champion as the ledger knows it, if there is one."""
    serving = serving_now(ledger.about(model, SERVING))
    if serving is None or serving.champion is None:
        return None
    lines = ledger.entries(TRAINING, model)
    own = [entry.at for entry in lines if str(entry.body["version"]) == serving.champion]
    return Served(
        version=serving.champion,
        first_day=_first_full_day(serving.champion_since, timezone),
        trained_at=max(own, default=serving.champion_since),
        last_training_at=max((entry.at for entry in lines), default=serving.champion_since),
    )


def _first_full_day(moment: datetime, timezone: str) -> date:
    day = day_of(moment, timezone)
    return day if day_start(day, timezone) == moment else day + timedelta(days=1)


def write(
    ledger: Ledger, policy: RetrainPolicy, model: str, key: str, at: datetime, decision: Decision, timezone: str = "UTC"
) -> Entry:
    """Write the decision down; a retry finds the line that stands under its key (a day).

    A new retraining gets a number above all that were answered, also those that another policy of the model wanted.
    """

    def body() -> Mapping[str, Any]:
        before, answered = wanted(decisions(ledger, model)), consumed(ledger.entries(TRAINING, model))
        is_new = decision.answer == "retrain" and before <= answered
        return {
            "model": model,
            "answer": decision.answer,
            "reason": decision.reason,
            "measures": dict(decision.measures),
            "wanted": answered + 1 if is_new else before,
            "consumed": answered,
            "timezone": timezone,
            **_evidence(policy, decision),
        }

    return ledger.write(DECISION, policy.name, key, at, body)


def _evidence(policy: RetrainPolicy, decision: Decision) -> dict[str, Any]:
    """What `why` tells from, later, when the policy may say something else."""
    return {
        "asked": [
            {"kind": one.kind, "since": one.since.isoformat(), "reason": one.reason, "line": one.line}
            for one in decision.asked
        ],
        "held": [
            {"kind": one.kind, "reason": one.reason, "until": one.until.isoformat() if one.until else None}
            for one in decision.held
        ],
        "spares": list(decision.spares),
        "spares_time": decision.spares_time,
        "rules": policy.rules(),
    }
