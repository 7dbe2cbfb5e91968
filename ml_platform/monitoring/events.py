"""What happened to versions and is worth a message, though it has no end: from the ledger's lines."""

from datetime import datetime, timedelta

from ml_platform.spec import Project
from ml_platform.spec.alerts import Alert
from ml_platform.spec.calendar import day_of
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import ABORT, FAILURE, FOUND, ROLLBACK

_WORDS = {
    ROLLBACK: "version rolled back",
    ABORT: "rollout ended without a verdict",
    FOUND: "alias moved by somebody else",
}
_OF_LATE = timedelta(days=7)  # after that nobody is told any more: what nobody was told of for a week is in `history`


def events(ledger: Ledger, project: Project, now: datetime) -> list[Alert]:
    """Of the last week, oldest first.

    Raises:
        HomeDamaged: the file is not a ledger any more.
    """
    lines = [line for model in project.models for line in ledger.about(model, tuple(_WORDS))]
    found = [_alert(line, _WORDS[line.kind], f"models/{line.subject}", project.timezone) for line in lines]
    found += [
        _alert(line, "step failed", _asset(str(line.body["step"])), project.timezone)
        for line in ledger.entries(FAILURE, project.name)
    ]
    first = day_of(now - _OF_LATE, project.timezone)
    return sorted((one for one in found if one.began >= first), key=lambda one: (one.began, one.id))


def _asset(step: str) -> str:
    """The asset that a step makes, as far as its name says."""
    return step.replace("__", "/") or "runs"


def _alert(line: Entry, name: str, place: str, timezone: str) -> Alert:
    reason = str(line.body.get("reason") or f"line {line.number} of the ledger says no more")
    return Alert(
        id=f"line {line.number}",
        name=name,
        place=place,
        severity="warn",
        signal="event",
        sentence=reason,
        began=day_of(line.at, timezone),
    )
