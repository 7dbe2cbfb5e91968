"""What came of a version, from the ledger's lines."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import (
    ABORT,
    ADOPTION,
    APPROVAL,
    BEGIN,
    GATE,
    HOLD,
    PROMOTION,
    REFUSAL,
    REJECTION,
    ROLLBACK,
    ROLLOUT,
)

Body = Mapping[str, Any]
# Which field of a line names the version that it is about, and what the line says of it.
_SAYS: Mapping[str, tuple[str, Callable[[Body], str]]] = {
    GATE: ("version", lambda b: f"was judged ({b['state']}) and waits for its deployment: {b['reason']}"),
    HOLD: ("version", lambda b: f"is held back: {b['reason']}"),
    REFUSAL: ("version", lambda b: f"was not promoted: {b['reason']}"),
    APPROVAL: ("version", lambda b: f"was approved by {b['by']}: {b['reason']}"),
    REJECTION: ("version", lambda b: f"was rejected by {b['by']}: {b['reason']}"),
    BEGIN: ("canary", lambda b: f"is in its rollout over version {b['champion']}, asked unseen: {b['reason']}"),
    ROLLOUT: ("canary", lambda b: f"is in its rollout and answers {float(b['share']):.0%}: {b['reason']}"),
    ROLLBACK: (
        "before",
        lambda b: f"was rolled back{_by(b)} and version {b['version']} serves again: {b['reason']}",
    ),
    ABORT: ("canary", lambda b: f"ended its rollout without a verdict{_by(b)}: {b['reason']}"),
    PROMOTION: ("version", lambda b: f"was promoted and is champion no longer: {b['reason']}"),
    ADOPTION: ("version", lambda b: f"was made champion by {b['by']} and is it no longer: {b['reason']}"),
}


def fate(ledger: Ledger, model: str, version: str) -> str:
    """What the newest line about a version that is not champion says became of it."""
    lines = [line for line in ledger.about(model, tuple(_SAYS)) if str(line.body[_SAYS[line.kind][0]]) == version]
    return _SAYS[lines[-1].kind][1](lines[-1].body) if lines else "was not judged yet"


def _by(body: Body) -> str:
    return f" by {body['by']}" if "by" in body else ""
