"""Why a model was or was not retrained, promoted, rolled back, and when it could be next: from the record alone.

Nothing but lines of the ledger is read, and none that was written after the moment that is asked about.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ml_platform.decisions import record
from ml_platform.decisions.fate import fate
from ml_platform.decisions.next_time import Next, next_time
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import ADOPTION, FOUND, GATHERING, OF_A_MODEL, PROMOTION, ROLLBACK, TRAINING
from ml_platform.stores.ledger_lines import Lines
from ml_platform.stores.ledger_serving import Serving, periods
from ml_platform.stores.ledger_wants import decisions, outstanding


@dataclass(frozen=True, kw_only=True)
class Why:
    """The sentences, and what they were made of as plain values."""

    model: str
    at: datetime
    sentences: tuple[str, ...]
    plain: dict[str, Any]

    @property
    def text(self) -> str:
        """One sentence a line."""
        return "\n".join(self.sentences)

    def as_json(self) -> dict[str, Any]:
        """With the sentences."""
        return {"model": self.model, "at": self.at.isoformat(), **self.plain, "sentences": list(self.sentences)}


def why(ledger: Ledger, model: str, at: datetime) -> Why:
    """What the ledger says of a model by a moment."""
    lines = ledger if isinstance(ledger, Lines) else Lines.of(ledger, at)
    decided, served = decisions(lines, model), _serving(lines, model)
    if not decided and not lines.about(model, OF_A_MODEL):
        return Why(model=model, at=at, sentences=(f"By {moment(at)} the record says nothing of {model}.",), plain={})
    upcoming = next_time(lines, model, decided, at)
    told = [
        *_decision(lines, model, decided),
        *_next(model, decided, upcoming),
        *_reviews(lines, model),
        *_champion(served),
        *_last_training(lines, model, decided, served),
    ]
    return Why(model=model, at=at, sentences=tuple(told), plain=_plain(served, decided, upcoming))


def _serving(lines: Lines, model: str) -> list[Serving]:
    return periods(lines.about(model, OF_A_MODEL))


def _plain(served: Sequence[Serving], decided: Sequence[Entry], upcoming: Next | None) -> dict[str, Any]:
    now, last = (served[-1] if served else None), (decided[-1] if decided else None)
    return {
        "champion": now.champion if now else None,
        "champion_since": now.champion_since.isoformat() if now else None,
        "canary": now.canary if now else None,
        "decision": {"day": last.key, "policy": last.subject, **dict(last.body)} if last else None,
        "next": upcoming.as_json() if upcoming else None,
    }


# Who serves


def _champion(served: Sequence[Serving]) -> Iterator[str]:
    if not served or served[-1].champion is None:
        yield "No version serves."
        return
    now = served[-1]
    began = next(one for one in served if one.champion == now.champion and one.champion_since == now.champion_since)
    yield f"Version {now.champion} has been champion since {moment(now.champion_since)}{_how(began.line)}."
    if now.canary:
        reason = now.line.body.get("reason", "")
        yield f"Version {now.canary} answers {now.share:.0%} beside it since {moment(now.since)}: {reason}."


def _how(line: Entry) -> str:
    """Of the line by which it became champion."""
    if line.kind == PROMOTION:
        return f": {line.body['reason']}"
    if line.kind == ROLLBACK:
        who = f", said {line.body['by']}" if "by" in line.body else ""
        return f", again, for version {line.body['before']} was taken back{who}: {line.body['reason']}"
    if line.kind == ADOPTION:
        return f", for {line.body['by']} said so: {line.body['reason']}"
    if line.kind == FOUND:
        return ", for somebody moved the alias past the platform"
    return ""


# How it came to the last training


def _last_training(lines: Lines, model: str, decided: Sequence[Entry], served: Sequence[Serving]) -> Iterator[str]:
    trained = lines.entries(TRAINING, model)
    if not trained:
        yield "No version was trained yet."
        return
    last, champion = trained[-1], served[-1].champion if served else None
    version = str(last.body["version"])
    if version == champion:
        yield f"It was trained on {moment(last.at)}, {_reason_of(last, decided)}; none was trained since."
        return
    yield f"Version {version} was trained last, on {moment(last.at)}, {_reason_of(last, decided)}."
    if not (served and served[-1].canary == version):  # of a canary that was said above
        yield f"Version {version} {fate(lines, model, version)}."


def _reason_of(training: Entry, decided: Sequence[Entry]) -> str:
    number = int(training.body["decision"])
    asked = next((line for line in decided if number and int(line.body["wanted"]) == number), None)
    if "entered_from" in training.body:
        return f"as {training.body['entered_from']}, which won a contest"
    if asked is None:
        return "without a decision (to begin with, or by hand)"
    return f"as decided {_when(asked)} ({asked.body['reason']})"


def _when(decided: Entry) -> str:
    """The day that it looked back on; of a decision on a person's word the line that says it."""
    day, _, line = decided.key.partition(" ")
    return f"on the word of {line}" if line else f"after {day}"


# What was decided last


def _decision(lines: Lines, model: str, decided: Sequence[Entry]) -> Iterator[str]:
    if not decided:
        return
    last, due = decided[-1], outstanding(lines, model)
    when, reason = _when(decided[-1]), decided[-1].body["reason"]
    when = when[0].upper() + when[1:]
    if last.body["answer"] == "retrain":
        done = "" if due else ", which has been done"
        yield f"{when} it was decided to retrain{done}: {reason}."
    elif last.body["answer"] == "wait":
        yield f"{when} it was decided not to retrain: {reason}."
    else:
        yield f"{when} it could not be judged whether to retrain: {reason}."
    if due:
        yield _still_wanted(lines, model, due, last)
    yield from _held_so_long(decided)


def _still_wanted(lines: Lines, model: str, due: Entry, last: Entry) -> str:
    number = int(due.body["wanted"])
    sets = [line for line in lines.entries(GATHERING, model) if int(line.body["decision"]) >= number]
    so_far = f"its training set was gathered on {moment(sets[-1].at)}" if sets else "it has not begun"
    reason = "" if due.number == last.number else f" ({due.body['reason']})"
    return (
        f"The retraining that was decided {_when(due)}{reason} has brought no version yet: {so_far}; it is asked for "
        f"again every day until one is registered."
    )


def _held_so_long(decided: Sequence[Entry]) -> Iterator[str]:
    """Since when something asks in vain; or that what asked yesterday no longer does."""
    if len(decided) < 2 or "asked" not in decided[-1].body or decided[-1].body["answer"] == "retrain":
        return
    before = [line for line in decided[:-1] if line.subject == decided[-1].subject]
    waited = []
    for line in reversed(before):
        if line.body["answer"] == "retrain" or not line.body.get("asked"):
            break
        waited.append(line)
    if not waited:
        return
    if decided[-1].body["asked"]:
        yield f"Something has asked for it since {waited[-1].key[:10]}, at {len(waited) + 1} decisions in a row."
    elif decided[-1].body["measures"].get("version") == waited[0].body["measures"].get("version"):
        asked = [one for one in waited[0].body["asked"] if isinstance(one, dict)]  # none where it was forgotten
        kinds = " and ".join(dict.fromkeys(_WORDS[one["kind"]] for one in asked)) or "something"
        yield f"Until {waited[0].key[:10]} {kinds} asked for it; that is over, without a retraining."


_WORDS = {
    "request": "a person",
    "review": "a person",
    "change": "another declaration",
    "drift": "drift",
    "schedule": "the timetable",
    "deadline": "the deadline",
    "losses": "the losses",
}


def _reviews(lines: Lines, model: str) -> Iterator[str]:
    for one in record.open_reviews(lines, model):
        since = f"waits for a word since {moment(one.at)}"
        yield (
            f"{one.drift} drifted, which no policy answers, and {since} ({one.reason}): "
            f"`ml-platform approve {model} --drift {one.line} --by NAME --reason WHY` retrains, `reject` lets it be."
        )


# When it could be next


def _next(model: str, decided: Sequence[Entry], upcoming: Next | None) -> Iterator[str]:
    if not decided:
        yield f"No decision was made yet about when {model} is trained again."
    if upcoming is None or upcoming.wanted:
        return
    by_hand = f"`ml-platform retrain {model} --by NAME --reason WHY`"
    if upcoming.held:
        reasons = " and ".join(rest.reason for rest in upcoming.held)
        when = f"at the earliest on {moment(upcoming.not_before)}" if upcoming.not_before else "not by itself"
        yield f"It can be retrained again {when} ({reasons}); {by_hand} does not wait for that."
    else:
        asks = " or ".join(upcoming.asks)
        yield f"Nothing holds a retraining back: it begins with the next decision for which {asks}."
    if upcoming.due:
        yield f"Time asks for one on {moment(upcoming.due)}."


def moment(at: datetime) -> str:
    """As people read it."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
