"""Which retrainings of a model are wanted and which were carried out, from the ledger's lines alone.

A wanted retraining has a number. It stays wanted until a training that began after it was written is registered, so no
interleaving of decisions, failures and restarts loses it. A training answers two things, both read before its rows: the
number that was wanted then, and all that stood in the ledger up to a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import DECISION, REVIEW, REVIEWED, TRAINING


@dataclass(frozen=True, kw_only=True)
class Answers:
    """decision: the number of the wanted retraining (0: none); heard: the last line that stood when it began."""

    decision: int = 0
    heard: int = 0

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Answers":
        """As a line of a gathering or a training has it; lines from before lines were counted heard none."""
        return cls(decision=int(body["decision"]), heard=int(body.get("heard", 0)))


def decisions(ledger: Ledger, model: str) -> list[Entry]:
    """Every decision about the model, of whichever policy, oldest first."""
    return [line for line in ledger.of_kind(DECISION) if line.body.get("model") == model]


def heard_now(ledger: Ledger, model: str) -> Answers:
    """What a training answers whose rows are read after this."""
    heard = ledger.height()
    return Answers(decision=wanted(decisions(ledger, model), heard), heard=heard)


def wanted(decided: Sequence[Entry], until: int | None = None) -> int:
    """How many retrainings were wanted so far (up to a line): the most that any decision says."""
    lines = [line for line in decided if until is None or line.number <= until]
    return max((int(line.body["wanted"]) for line in lines), default=0)


def consumed(trainings: Sequence[Entry]) -> int:
    """Up to which of them a registered training has answered."""
    return max((int(line.body["decision"]) for line in trainings), default=0)


def last_heard(trainings: Sequence[Entry]) -> int:
    """The last line that stood when some registered training began: what was written up to it asks no longer."""
    return max((Answers.of(line.body).heard for line in trainings), default=0)


def open_reviews(ledger: Ledger, model: str) -> list[Entry]:
    """Questions about drift on which nobody has said a word, and after which no registered training began."""
    said, heard = reviewed(ledger, model), last_heard(ledger.entries(TRAINING, model))
    return [line for line in ledger.entries(REVIEW, model) if line.number > heard and line.number not in said]


def reviewed(ledger: Ledger, model: str) -> set[int]:
    """The lines of the questions on which somebody has said a word."""
    return {int(line.body["review"]) for line in ledger.entries(REVIEWED, model)}


def outstanding(ledger: Ledger, model: str) -> Entry | None:
    """The decision whose retraining no registered training has answered yet, with its reason; None if there is none."""
    decided = decisions(ledger, model)
    number = wanted(decided)
    if number <= consumed(ledger.entries(TRAINING, model)):
        return None
    return next(line for line in decided if int(line.body["wanted"]) == number)
