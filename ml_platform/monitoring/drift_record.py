"""Drift in the ledger: the days on which a verdict failed, and the review where no policy says what follows from it."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta

from ml_platform.spec import DriftPolicy, Project, Verdict
from ml_platform.spec.impact import Branch, impact
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import DRIFT, REVIEW, TRAINING
from ml_platform.stores.ledger_wants import Answers, last_heard, reviewed

_AGAIN = ", again after version "
_ONE_INCIDENT = timedelta(days=7)  # a failure so soon after the last one is the same incident


def note(ledger: Ledger, project: Project, policy: str, day: date, at: datetime, verdict: Verdict) -> Entry | None:
    """Write down that a drift policy's verdict of a day failed; nothing otherwise. A retry changes nothing.

    Where no retraining policy of the service's model names it among its ``triggers``, a review is opened, one for each
    incident.
    """
    if verdict.state != "fail":
        return None
    declared = project.drift_policies[policy]
    body = {"day": day.isoformat(), "service": declared.service, "reason": verdict.reason}
    line = ledger.write(DRIFT, policy, day.isoformat(), at, body)
    for model in models_of(project, declared):
        retraining = project.models[model].policy
        if retraining is not None and policy not in project.retrain_policies[retraining].triggers:
            begun = incident(ledger, policy, day)
            open_review(ledger, model, f"drift/{policy}", begun, day, line.body["reason"], at)
    return line


def models_of(project: Project, policy: DriftPolicy) -> tuple[str, ...]:
    """The served models that a drift policy is about: the service's, or those behind its table."""
    if policy.service:
        return (project.services[policy.service].model,)
    return models_behind(project, f"raw/{policy.table}")


def models_behind(project: Project, address: str) -> tuple[str, ...]:
    """The served models that depend on a raw table or a raw column (``raw/weather.temp``)."""
    named = {branch.name for branch in _walk(impact(project, address))}
    served = {service.model for service in project.services.values()}
    return tuple(model for model in project.models if model in served and f"models/{model}" in named)


def _walk(branch: Branch) -> Iterator[Branch]:
    yield branch
    for below in branch.below:
        yield from _walk(below)


def incident(ledger: Ledger, policy: str, day: date) -> date:
    """The first day of the failures that a day's failure is one of."""
    failed = sorted({date.fromisoformat(str(line.body["day"])) for line in ledger.entries(DRIFT, policy)} | {day})
    first = day
    for other in reversed([one for one in failed if one <= day]):
        if first - other > _ONE_INCIDENT:
            break
        first = other
    return first


def open_review(ledger: Ledger, model: str, drift: str, begun: date, day: date, reason: str, at: datetime) -> Entry:
    """Ask a person whether drift that no policy answers is a reason to retrain the model; once for each incident.

    A training that began after it was asked is an answer, too. What still drifts on a day after that training is asked
    about again, unless somebody has said a word on the incident.

    drift: what drifted, as an asset's key or a column's address. begun: the incident's first day; day: this one.
    """
    key, body = f"{drift} from {begun}", {"drift": drift, "reason": reason}
    first = ledger.write(REVIEW, model, key, at, body)
    asked = [first, *(line for line in ledger.entries(REVIEW, model) if line.key.startswith(f"{key}{_AGAIN}"))]
    trained = [line for line in ledger.entries(TRAINING, model) if line.at.date() < day]
    if last_heard(trained) < asked[-1].number or reviewed(ledger, model) & {line.number for line in asked}:
        return asked[-1]
    newest = max(trained, key=lambda line: Answers.of(line.body).heard)
    return ledger.write(REVIEW, model, f"{key}{_AGAIN}{newest.body['version']}", at, body)
