"""The record of decisions: what is wanted, what a training has consumed, and what the champion is.

Level-triggered: a wanted retraining stays wanted, and its alarm is raised again each day, until a training that began
after it was registered. So no interleaving of decisions, failures and restarts loses it.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from ml_platform.decisions.retraining import Decision, Served
from ml_platform.spec.calendar import day_of, day_start
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import DECISION, SERVING, TRAINING
from ml_platform.stores.ledger_serving import serving_now


def wanted(ledger: Ledger, policy: str) -> int:
    """How many retrainings were decided so far; the most any line says, for two writers may overtake each other."""
    return max((int(entry.body["wanted"]) for entry in ledger.entries(DECISION, policy)), default=0)


def consumed(ledger: Ledger, model: str) -> int:
    """Up to which of them a registered training has answered."""
    return max((int(entry.body["decision"]) for entry in ledger.entries(TRAINING, model)), default=0)


def outstanding(ledger: Ledger, policy: str, model: str) -> Entry | None:
    """The decision whose retraining no registered training has answered yet, with its reason; None if there is none."""
    number = wanted(ledger, policy)
    if number <= consumed(ledger, model):
        return None
    return next(entry for entry in ledger.entries(DECISION, policy) if int(entry.body["wanted"]) == number)


def served(ledger: Ledger, model: str, timezone: str) -> Served | None:
    """The champion as the ledger knows it, if there is one."""
    serving = serving_now(ledger.about(model, SERVING))
    if serving is None or serving.champion is None:
        return None
    trainings = ledger.entries(TRAINING, model)
    own = [entry.at for entry in trainings if str(entry.body["version"]) == serving.champion]
    return Served(
        version=serving.champion,
        first_day=_first_full_day(serving.champion_since, timezone),
        trained_at=max(own, default=serving.champion_since),
        last_training_at=max((entry.at for entry in trainings), default=serving.champion_since),
    )


def _first_full_day(moment: datetime, timezone: str) -> date:
    day = day_of(moment, timezone)
    return day if day_start(day, timezone) == moment else day + timedelta(days=1)


def write(ledger: Ledger, policy: str, model: str, day: date, at: datetime, decision: Decision) -> Entry:
    """Write the day's decision down; a retry finds the line that stands.

    A new retraining gets a number above all that were answered, also those that another policy of the model wanted.
    """
    before, answered = wanted(ledger, policy), consumed(ledger, model)
    is_new = decision.answer == "retrain" and before <= answered
    body: Mapping[str, Any] = {
        "model": model,
        "answer": decision.answer,
        "reason": decision.reason,
        "measures": dict(decision.measures),
        "wanted": answered + 1 if is_new else before,
        "consumed": answered,
    }
    return ledger.write(DECISION, policy, day.isoformat(), at, body)
