"""What the gate's verdict does to the registry's champion, written down so that `why` can be answered later."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ml_platform.features.skew import newest_skew
from ml_platform.spec import MissingHistory, NoChampion, Service
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.tracking import Tracking

PROMOTION, REFUSAL, HOLD = "promotion", "refusal", "hold"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The champion after deploying (None: there is none yet), what was done and why."""

    champion: str | None
    action: Literal["promoted", "refused", "held", "kept"]
    reason: str


def decide(verdict: Mapping[str, Any], champion: str | None, *, promoted_before: bool) -> tuple[str, str]:
    """(action, reason) for the gate's newest verdict ``{state, reason, version, ...}``.

    A version that was promoted once is not promoted again: if another is champion now, somebody rolled it back.
    """
    version = str(verdict["version"])
    if champion == version:
        return "kept", f"version {version} is champion already"
    if verdict["state"] not in ("pass", "warn"):
        return "refused", str(verdict["reason"])
    if promoted_before:
        return "kept", f"version {version} was promoted before and version {champion} took its place since"
    return "promoted", str(verdict["reason"])


def skewed(ledger: Ledger, service: str) -> str | None:
    """Why nothing may be promoted: the newest look at the service's answers found values that differ."""
    looks = [entry for entry in newest_skew(ledger, service) if int(entry.body["compared"])]
    newest = max(looks, key=lambda entry: str(entry.body["days"]), default=None)
    return str(newest.body["reason"]) if newest is not None and int(newest.body["differing"]) else None


def deploy(service: Service, tracking: Tracking, ledger: Ledger, now: datetime) -> Deployment:
    """Make the newest version champion if the gate let it pass; every step may be repeated.

    While the service's answers differ from what is recomputed, nothing is promoted: a model that is fed other values
    than it was judged on has not been judged.

    Raises:
        MissingHistory: the gate never judged this model.
    """
    model = service.model
    judged = ledger.last("gate", model)
    if judged is None:
        raise MissingHistory(f"the gate never judged model {model}; materialize evaluations/{model} first")
    version = str(judged.body["version"])
    champion = champion_version(tracking, model)
    before = any(entry.key == f"v{version}" for entry in ledger.entries(PROMOTION, model))
    action, reason = decide(judged.body, champion, promoted_before=before)
    told = {"version": version, "before": champion, "reason": reason, "gate": judged.number}
    skew = skewed(ledger, service.name)
    if action == "promoted" and skew:
        held = f"version {version} waits until {service.name} serves what is recomputed again: {skew}"
        ledger.write(HOLD, model, f"v{version}/{now:%Y-%m-%d}", now, {**told, "reason": held})
        return Deployment(champion=champion, action="held", reason=held)
    if action == "promoted":
        tracking.promote(model, int(version))
    if action == "promoted" or (champion == version and not before):  # or killed between the two steps
        told["reason"] = str(judged.body["reason"])
        ledger.write(PROMOTION, model, f"v{version}", now, told)
        return Deployment(champion=version, action="promoted", reason=str(told["reason"]))
    if action == "refused":
        ledger.write(REFUSAL, model, f"v{version}", now, told)
        return Deployment(champion=champion, action="refused", reason=reason)
    return Deployment(champion=champion, action="kept", reason=reason)


def champion_version(tracking: Tracking, model: str) -> str | None:
    """The registry's champion, if any."""
    try:
        return str(tracking.champion(model).version)
    except NoChampion:
        return None
