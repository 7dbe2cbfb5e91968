"""What the gate's verdict and a person's word do to the registry's champion, written down for `why` to be answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ml_platform.features.skew import newest_look
from ml_platform.serving.aliases import look, named, rejected
from ml_platform.serving.rollout_way import Way, closed, end_vain, taken
from ml_platform.spec import MissingHistory, Service, Verdict
from ml_platform.spec.models import Approval
from ml_platform.stores.ledger import Entry, Ledger, without_examples
from ml_platform.stores.ledger_kinds import ADOPTION, ALIAS, APPROVAL, GATE, HOLD, PROMOTION, REFUSAL
from ml_platform.stores.tracking import CHAMPION, Tracking

Action = Literal["promoted", "refused", "held", "kept", "begun"]


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The champion after deploying (None: there is none yet), what was done and why.

    aliases: whether MLflow's aliases are those of the ledger; ledger: whether that is whole.
    """

    champion: str | None
    action: Action
    reason: str
    aliases: Verdict
    ledger: Verdict


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A judged version and everything that was said about it.

    approval: a person's word on it beside the present champion; rejection: a person's last word on it.
    """

    verdict: Entry
    promoted_before: bool
    approval: Entry | None = None
    rejection: Entry | None = None

    @property
    def version(self) -> str:
        """Its number."""
        return str(self.verdict.body["version"])


def decide(candidate: Candidate, champion: str | None, approval: Approval) -> tuple[Action, str]:
    """What to do with a version, and why.

    A version that was promoted once is not promoted again: if another is champion now, somebody rolled it back.
    """
    version, verdict, word = candidate.version, candidate.verdict.body, candidate.approval
    reason = str(verdict["reason"])
    if champion == version:
        return "kept", f"version {version} is champion already"
    if candidate.rejection:
        return "refused", f"version {version} was rejected by {_said(candidate.rejection)}"
    if verdict["state"] not in ("pass", "warn") and not (word and word.body["override"]):
        return "refused", reason
    if candidate.promoted_before:
        return "kept", f"version {version} was promoted before and version {champion} took its place since"
    if word:
        return "promoted", f"{reason}; approved by {_said(word)}"
    if approval == "person":
        return "held", f"version {version} passed the gate and awaits `ml-platform approve` (or `reject`): {reason}"
    old = outdated(verdict, champion)
    if old:
        return "held", f"version {version} waits: {old}"
    return "promoted", reason


def outdated(verdict: Mapping[str, Any], champion: str | None) -> str | None:
    """Why a verdict says nothing about today's champion; None if it does."""
    against = verdict.get("champion", champion)
    if str(against) == str(champion):
        return None
    return (
        f"it was judged against {named(against)}, and {named(champion)} is champion now; the next training is judged "
        f"against that, or a person approves this one with --override"
    )


def _said(line: Entry) -> str:
    return f"{line.body['by']} (line {line.number}): {line.body['reason']}"


def skewed(ledger: Ledger, service: str) -> str | None:
    """Why nothing may be promoted: the newest look at the service's answers found values that differ."""
    newest = newest_look(ledger, service)
    return str(newest.body["reason"]) if newest is not None and int(newest.body["differing"]) else None


def deploy(
    service: Service,
    tracking: Tracking,
    ledger: Ledger,
    now: datetime,
    *,
    approval: Approval = "automatic",
    way: Way | None = None,
) -> Deployment:
    """Make the newest version champion if the gate, and a person where one is asked, let it pass; may be repeated.

    Where the service has a rollout, such a version begins it, and is champion once that is won.

    Nothing is promoted while the service's answers differ from what is recomputed (a model that is fed other values
    than it was judged on has not been judged), while somebody's move of the alias is not settled, or on the word of a
    ledger that was tampered with.

    approval: of the model's ``GatePolicy``. way: the service's rollout; None: versions take over at once.

    Raises:
        MissingHistory: the gate never judged this model.
    """
    model = service.model
    whole, aliases = ledger.verify(), look(tracking, ledger, model, now)
    if way is not None:
        end_vain(way, ledger, model, aliases.champion, now)
    candidate, action, reason = _decided(ledger, model, aliases.champion, approval)
    body = {"version": candidate.version, "before": aliases.champion, "gate": candidate.verdict.number}
    waits = aliases.moved or (action == "promoted" and _waits(service.name, candidate, ledger, whole))
    if waits:
        action, reason = "held", waits
    if action == "promoted" and way is not None and aliases.champion is not None:
        action, reason = taken(way, ledger, model, candidate.version, aliases.champion, reason, now)
    if action == "promoted" and not _promote(tracking, ledger, model, candidate, {**body, "reason": reason}, now):
        action, reason = "refused", f"version {candidate.version} was rejected meanwhile"
    if action == "refused":
        ledger.write(REFUSAL, model, f"v{candidate.version}", now, {**body, "reason": reason})
    if way is not None and action in ("promoted", "refused"):
        closed(way, candidate.version)
    if action == "held":
        _hold(ledger, model, {**body, "reason": reason}, now)
    champion = candidate.version if action == "promoted" else aliases.champion
    return Deployment(champion=champion, action=action, reason=reason, aliases=aliases.verdict, ledger=whole)


def _decided(ledger: Ledger, model: str, champion: str | None, approval: Approval) -> tuple[Candidate, Action, str]:
    """The newest version that may be promoted, and why; if none may, the newest one that was judged, and why not."""
    found = [(one, *decide(one, champion, approval)) for one in candidates(ledger, model, champion)]
    return next((one for one in found if one[1] == "promoted"), found[0])


def candidates(ledger: Ledger, model: str, champion: str | None) -> list[Candidate]:
    """The newest version that was judged, and those that a person let pass beside this champion, the newest first.

    Raises:
        MissingHistory: the gate never judged this model.
    """
    verdicts = {str(line.body["version"]): line for line in ledger.entries(GATE, model)}
    if not verdicts:
        raise MissingHistory(f"the gate never judged model {model}; materialize evaluations/{model} first")
    newest = str(max(verdicts.values(), key=lambda line: line.number).body["version"])
    said = [line for line in ledger.entries(APPROVAL, model) if line.body["champion"] == champion]
    words = {str(line.body["version"]): line for line in said}
    promoted = {str(line.body["version"]) for line in ledger.about(model, (PROMOTION, ADOPTION))}
    return [
        Candidate(
            verdict=verdicts[version],
            promoted_before=version in promoted,
            approval=words.get(version),
            rejection=rejected(ledger, model, version),
        )
        for version in dict.fromkeys([newest, *reversed(words)])
    ]


def _waits(service: str, candidate: Candidate, ledger: Ledger, whole: Verdict) -> str | None:
    """Why nothing may be promoted now, whatever the gate and people say."""
    if whole.state == "fail":
        return f"version {candidate.version} waits, for what the ledger says of it cannot be trusted: {whole.reason}"
    skew = skewed(ledger, service)
    if skew:
        return f"version {candidate.version} waits until {service} serves what is recomputed again: {skew}"
    return None


def _promote(
    tracking: Tracking, ledger: Ledger, model: str, candidate: Candidate, body: Mapping[str, Any], now: datetime
) -> bool:
    """Move the alias, between two lines: what is between them at a kill is known by `aliases.look`.

    False: the version was rejected before the first line, by somebody who was quicker.
    """
    version = candidate.version
    word = candidate.approval.number if candidate.approval else None
    told = {**body, "alias": CHAMPION, "approval": word}
    begun = ledger.write(ALIAS, model, f"v{version} over {body['before']} at {now.isoformat()}", now, told)
    if rejected(ledger, model, version, before=begun):
        return False
    tracking.promote(model, int(version))
    ledger.write(PROMOTION, model, f"v{version}", now, told)
    return True


def _hold(ledger: Ledger, model: str, body: Mapping[str, Any], now: datetime) -> None:
    """Once for each reason: the next look mostly finds the same one."""
    last = ledger.last(HOLD, model)
    if last is None or last.body != without_examples(body):
        ledger.write(HOLD, model, f"v{body['version']} at {now.isoformat()}", now, body)
