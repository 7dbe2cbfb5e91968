"""What a person says of a retraining: it shall be, or (of drift that no policy answers) whether it shall."""

from datetime import datetime

from ml_platform.decisions.record import LEAVE, RETRAIN, open_reviews
from ml_platform.spec import WordRefused
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import REQUEST, REVIEW, REVIEWED


def request(ledger: Ledger, model: str, by: str, reason: str, now: datetime) -> Entry:
    """Ask for a retraining; it is wanted until a training that began after this line is registered.

    Raises:
        WordRefused: a name or a reason is missing.
    """
    by, reason = said(by, reason)
    key = f"{by} at {now.isoformat()} behind line {ledger.height()}"
    return ledger.write(REQUEST, model, key, now, {"by": by, "reason": reason})


def answer(ledger: Ledger, model: str, review: int, *, retrain: bool, by: str, reason: str, now: datetime) -> Entry:
    """Say whether drift asks for a retraining. The first word stands; saying the same again changes nothing.

    review: the line that opened it.

    Raises:
        WordRefused: a name or a reason is missing, there is no such review, or the opposite was said before.
    """
    by, reason = said(by, reason)
    opened = {line.number: line for line in ledger.entries(REVIEW, model)}
    if review not in opened:
        waiting = ", ".join(f"{one.line} ({one.drift})" for one in open_reviews(ledger, model)) or "none"
        raise WordRefused(f"line {review} opens no review of {model}; those that wait for a word: {waiting}")
    body = {"review": review, "answer": RETRAIN if retrain else LEAVE, "by": by, "reason": reason}
    line = ledger.write(REVIEWED, model, f"review {review}", now, body)
    if line.body["answer"] != body["answer"]:
        raise WordRefused(
            f"{line.body['by']} said {line.body['answer']!r} of review {review} on {line.at:%Y-%m-%d} (line "
            f"{line.number}); to retrain all the same: `ml-platform retrain {model} --by NAME --reason WHY`"
        )
    return line


def said(by: str, reason: str) -> tuple[str, str]:
    """Both without the spaces around them.

    Raises:
        WordRefused: one is missing.
    """
    if not by.strip() or not reason.strip():
        raise WordRefused("the ledger keeps who decided and why: give --by a name and --reason a sentence")
    return by.strip(), reason.strip()
