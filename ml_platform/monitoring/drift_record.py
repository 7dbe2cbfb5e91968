"""Drift in the ledger: the days on which a verdict failed, and the review where no policy says what follows from it."""

from datetime import date, datetime, timedelta

from ml_platform.spec import Project, Verdict
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import DRIFT, REVIEW

_ONE_INCIDENT = timedelta(days=7)  # a failure so soon after the last one is the same incident


def note(ledger: Ledger, project: Project, policy: str, day: date, at: datetime, verdict: Verdict) -> Entry | None:
    """Write down that a drift policy's verdict of a day failed; nothing otherwise. A retry changes nothing.

    Where no retraining policy of the service's model names it among its ``triggers``, a review is opened, one for each
    incident.
    """
    if verdict.state != "fail":
        return None
    service = project.services[project.drift_policies[policy].service]
    body = {"day": day.isoformat(), "service": service.name, "reason": verdict.reason}
    line = ledger.write(DRIFT, policy, day.isoformat(), at, body)
    retraining = project.models[service.model].policy
    if retraining is not None and policy not in project.retrain_policies[retraining].triggers:
        begun = incident(ledger, policy, day)
        open_review(ledger, service.model, f"drift/{policy}", f"from {begun}", line.body["reason"], at)
    return line


def incident(ledger: Ledger, policy: str, day: date) -> date:
    """The first day of the failures that a day's failure is one of."""
    failed = sorted({date.fromisoformat(str(line.body["day"])) for line in ledger.entries(DRIFT, policy)} | {day})
    first = day
    for other in reversed([one for one in failed if one <= day]):
        if first - other > _ONE_INCIDENT:
            break
        first = other
    return first


def open_review(ledger: Ledger, model: str, drift: str, which: str, reason: str, at: datetime) -> Entry:
    """Ask a person whether drift that no policy answers is a reason to retrain the model; once for each incident.

    drift: what drifted, in words or as an asset's key. which: names the incident among others of the same drift.
    """
    return ledger.write(REVIEW, model, f"{drift} {which}", at, {"drift": drift, "reason": reason})
